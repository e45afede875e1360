// Passes requests that arrive within a few milliseconds to ingest together, in one
// transaction, so that under load one commit serves many requests.

// Class 22 (data exception) and class 54 (program limit exceeded) are caused by the body,
// so a retry would fail again.
export const isBodyError = (error) => /^(22|54)/.test(error.code ?? '')

export class Batcher {
  #queue = []
  #running = 0
  #timer

  // wait: milliseconds; most: bodies in a batch, at most; rejected(account, count):
  // called if events were rejected.
  constructor(pool, { wait, most, rejected }) {
    Object.assign(this, { pool, wait, most, rejected })
  }

  // Resolves when the body's events are committed.
  ingest(body, account) {
    const events = unwrapped(body)
    if (events === '') return { ok: true }
    return new Promise((resolve, reject) => {
      this.#queue.push({ events, account, resolve, reject })
      if (this.#queue.length >= this.most) this.#flush()
      else this.#timer ??= setTimeout(() => this.#flush(), this.wait)
    })
  }

  async #flush() {
    clearTimeout(this.#timer)
    this.#timer = undefined
    // Two batches at a time: the server parses one while it commits the other.
    if (this.#running === 2 || this.#queue.length === 0) return
    const batch = this.#queue.splice(0, this.most)
    this.#running++
    try {
      await this.#send(batch)
    } catch (error) {
      await this.#oneByOne(batch, error)
    } finally {
      this.#running--
      this.#flush()
    }
  }

  async #send(batch) {
    const { rows } = await this.pool.query({
      name: 'ingest',
      text: `SELECT b.account, sum(i.rejected) AS rejected
             FROM (SELECT account, ('[' || string_agg(body, ',') || ']')::json AS events
                   FROM unnest($1::text[], $2::text[]) AS u (body, account)
                   GROUP BY account
                   ORDER BY account) AS b,
                  postalytics.ingest(b.events, b.account) AS i
             GROUP BY b.account`,
      values: [batch.map((each) => each.events), batch.map((each) => each.account)],
    })
    for (const { account, rejected } of rows) if (rejected > 0) this.rejected(account, Number(rejected))
    for (const each of batch) each.resolve({ ok: true })
  }

  // A body that the server cannot accept must not make the others fail.
  async #oneByOne(batch, error) {
    if (batch.length === 1 || !isBodyError(error)) return batch.forEach((each) => each.reject(error))
    for (const each of batch) await this.#send([each]).catch(each.reject)
  }
}

// Return the elements of an array without its brackets, to be put into another array.
function unwrapped(body) {
  const text = body.trim()
  return text.startsWith('[') ? text.slice(1, -1).trim() : text
}
