// The client side of the page: shows each state that the server sends.
const STAGES = [
  ['pieces', 'Pieces'], ['mailed', 'Mailed'], ['in_transit', 'In Transit'], ['in_local_area', 'In Local Area'],
  ['processed_for_delivery', 'Processed'], ['re_routed', 'Re-Routed'], ['returned_to_sender', 'Returned'], ['responded', 'Responded'],
]
const COUNTRIES = [['US', 'United States', '#3a6ea5'], ['CA', 'Canada', '#d1495b'], ['', 'Elsewhere', '#888888']]
const SCANS = ['in_transit', 'in_local_area', 'processed_for_delivery', 're_routed', 'returned_to_sender'] // not reported in Canada

const $ = (id) => document.getElementById(id)
let state = { campaigns: [], countries: [], syncs: [], latest: [] }
let chosen

const chart = new Chart($('chart'), {
  type: 'bar',
  data: { labels: STAGES.map(([, label]) => label), datasets: [] },
  options: {
    indexAxis: 'y', maintainAspectRatio: false, animation: { duration: 300 },
    scales: { x: { stacked: true, ticks: { precision: 0 } }, y: { stacked: true } },
  },
})

// Set cells as text, never as HTML, because the feed is not trusted.
function row(cells, header) {
  const tr = document.createElement('tr')
  for (const [text, className = ''] of cells) {
    const cell = tr.appendChild(document.createElement(header ? 'th' : 'td'))
    cell.textContent = text
    cell.className = className
  }
  return tr
}

function showFunnel() {
  const rows = state.countries.filter((each) => (each.id ?? '') === chosen)
  const number = (country, stage) => (country === 'CA' && SCANS.includes(stage) ? null
    : rows.filter((each) => (['US', 'CA'].includes(each.country) ? each.country : '') === country).reduce((sum, each) => sum + Number(each[stage]), 0))
  const present = COUNTRIES.filter(([country]) => number(country, 'pieces') > 0)
  chart.data.datasets = present.map(([country, label, color]) => ({ label, backgroundColor: color, data: STAGES.map(([stage]) => number(country, stage)) }))
  chart.update()
  $('counts').tHead.replaceChildren(row([['status'], ...present.map(([, label]) => [label, 'number'])], true))
  $('counts').tBodies[0].replaceChildren(...STAGES.map(([stage, label]) =>
    row([[label], ...present.map(([country]) => [number(country, stage)?.toLocaleString() ?? '–', 'number'])])))
}

function show() {
  const campaigns = state.campaigns.map((each) => ({ ...each, id: each.id ?? '' }))
  chosen = campaigns.some((each) => each.id === chosen) ? chosen : campaigns[0]?.id
  $('campaign').replaceChildren(...campaigns.map(({ id, name }) => new Option(name, id, false, id === chosen)))
  showFunnel()
  $('latest').tBodies[0].replaceChildren(...state.latest.map((event) =>
    row([[new Date(event.occurred_at).toLocaleString([], { dateStyle: 'short', timeStyle: 'short' })], [event.label], [event.piece_id]])))
  $('syncs').tBodies[0].replaceChildren(...state.syncs.map((sync) =>
    row([[sync.name + (sync.enabled ? '' : ' (off)')], [sync.due, 'number'], [sync.waiting, 'number'],
      [sync.dead, Number(sync.dead) > 0 ? 'number bad' : 'number'], [sync.last_error ?? '', 'bad']])))
}

$('campaign').addEventListener('change', ({ target }) => { chosen = target.value; showFunnel() })
const stream = new EventSource('stream')
stream.onmessage = ({ data }) => { state = JSON.parse(data); show() }
stream.onopen = () => { $('live').textContent = 'live'; $('live').className = 'on' }
stream.onerror = () => { $('live').textContent = 'connecting'; $('live').className = '' }
