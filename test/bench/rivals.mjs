// rivals.mjs
//		Times 20,000 trivial jobs with graphile-worker, with hand-written SQL that has
//		the same lease semantics (queue.sql), and with fetch and ack, one after
//		another.  All clients run in this process, on the server named by PGHOST.
//		Prints a line for each of these runs: its name and the jobs per second.

import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const pg = require("pg");
const { run, makeWorkerUtils, Logger } = require("graphile-worker");

const JOBS = 20000;
const pool = new pg.Pool({ max: 12 }).on("error", () => {});
pool.on("connect", (client) => client.on("error", () => {}));
const logger = new Logger(() => () => {});

// Times work, which finishes all jobs, and prints the jobs per second.
async function timed(name, work) {
  const began = process.hrtime.bigint();
  await work();
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  console.log(name, Math.round(JOBS / seconds));
}

// Runs n copies of a loop, each on a connection of its own.
async function connections(n, loop) {
  await Promise.all(
    Array.from({ length: n }, async () => {
      const client = await pool.connect();
      try {
        await loop(client);
      } finally {
        client.release();
      }
    }),
  );
}

// ---- graphile-worker ----

async function graphile(name, preset) {
  await pool.query("TRUNCATE graphile_worker._private_jobs");
  await pool.query(`SELECT graphile_worker.add_jobs(array(
    SELECT ROW('job', json_build_object('id', i), NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec
    FROM generate_series(1, ${JOBS}) AS i))`);
  await pool.query("VACUUM ANALYZE graphile_worker._private_jobs");
  await pool.query("CHECKPOINT");
  let done = 0;
  let finished;
  const all = new Promise((resolve) => (finished = resolve));
  await timed(name, async () => {
    const runner = await run({
      preset: { worker: { ...preset, pollInterval: 2000 } },
      logger,
      noHandleSignals: true,
      pgPool: pool,
      taskList: {
        job: () => {
          if (++done === JOBS) finished();
        },
      },
    });
    await all;
    await runner.stop(); // completes the jobs that are still in batches
  });
  // The runner may still be completing the last job.
  for (let tries = 0; ; tries++) {
    const { rows } = await pool.query("SELECT count(*)::int AS left FROM graphile_worker._private_jobs");
    if (rows[0].left === 0) break;
    if (tries === 50) throw new Error(`${rows[0].left} jobs are left`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// ---- fetch and ack ----

async function fill() {
  await pool.query("TRUNCATE postalytics.deliveries_unfinished");
  await pool.query("SELECT postalytics.replay_sync('s', '-infinity')");
  await pool.query("VACUUM ANALYZE postalytics.deliveries_unfinished");
  await pool.query("CHECKPOINT");
}

async function check() {
  const { rows } = await pool.query("SELECT count(*)::int AS left FROM postalytics.deliveries_unfinished");
  if (rows[0].left !== 0) throw new Error(`${rows[0].left} deliveries are left`);
}

// A worker that finishes each batch by the call that fetches the next.
async function ours(name, n, batch) {
  await fill();
  await timed(name, () =>
    connections(n, async (client) => {
      for (let ids = []; ; ) {
        const { rows } = await client.query({
          name: "fetch",
          text: "SELECT delivery_id, piece_id, status FROM postalytics.fetch('s', $1, ack => $2)",
          values: [batch, ids],
        });
        if (rows.length === 0) break;
        ids = rows.map((row) => row.delivery_id);
      }
    }),
  );
  await check();
}

// ---- written in SQL ----

async function hand(name, n, batch) {
  await pool.query("TRUNCATE hand.deliveries");
  await pool.query(`INSERT INTO hand.deliveries (sync, piece_id, status, occurred_at, due_at)
    SELECT 's', piece_id, status, occurred_at, occurred_at FROM postalytics.events ORDER BY occurred_at`);
  await pool.query("VACUUM ANALYZE hand.deliveries");
  await pool.query("CHECKPOINT");
  await timed(name, () =>
    connections(n, async (client) => {
      for (;;) {
        const { rows } = await client.query({
          name: "take",
          text: "SELECT delivery_id, piece_id, status FROM hand.take('s', $1, '1 minute')",
          values: [batch],
        });
        if (rows.length === 0) break;
        await client.query({ name: "hand ack", text: "SELECT hand.ack('s', $1)", values: [rows.map((row) => row.delivery_id)] });
      }
    }),
  );
}

const utils = await makeWorkerUtils({ pgPool: pool, logger });
await utils.migrate();
const batched = { concurrentJobs: 24, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
const runs = {
  graphile: () => graphile("graphile", batched),
  "graphile-plain": () => graphile("graphile-plain", { concurrentJobs: 10 }),
  "fetch-100": () => ours("fetch-100", 2, 100),
  "fetch-500": () => ours("fetch-500", 2, 500),
  "fetch-1": () => ours("fetch-1", 10, 1),
  "hand-100": () => hand("hand-100", 2, 100),
  "hand-1": () => hand("hand-1", 10, 1),
};
const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(runs);
for (const name of names) await runs[name]();
await utils.release();
await pool.end();
