// What the stand-ins share: an HTTP server that records the requests it gets, and gives
// the answers in `faults` first: {status, headers, body}, 'hang up', 'silence', or
// 'forget', which does what the request asks and then loses the answer.
import { createServer } from 'node:http'

// answer(request) is called with {method, path, query, headers, text, body} and returns
// [status, body, headers].
export function standIn(port, answer) {
  const faults = [], calls = []
  const server = createServer(async (incoming, response) => {
    let text = ''
    for await (const part of incoming) text += part
    const { pathname, searchParams } = new URL(incoming.url, 'http://x')
    const request = { method: incoming.method, path: pathname, query: searchParams, headers: incoming.headers, text,
      body: incoming.headers['content-type']?.startsWith('application/json') ? JSON.parse(text) : {} }
    calls.push(request)
    const fault = faults.shift()
    if (fault === 'hang up') return incoming.socket.destroy()
    if (fault === 'silence') return
    const [status, body, headers = {}] = fault?.status ? [fault.status, fault.body ?? {}, fault.headers] : answer(request)
    if (fault === 'forget') return incoming.socket.destroy()
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(typeof body === 'string' ? body : JSON.stringify(body))
  }).listen(port, '127.0.0.1')
  server.unref()
  return { faults, calls, url: `http://127.0.0.1:${port}` }
}

// Say what is wrong with the value of a property, for the types that TypeScript declares.
export function wrongType(name, value, type) {
  const simple = type?.replace(' | null', '')
  if (type === undefined) return `${name} is not declared`
  if (value === null) return type.endsWith('| null') ? undefined : `${name} is null`
  if (['string', 'number', 'boolean'].includes(simple) && typeof value !== simple) return `${name} is no ${simple}`
  if (['Date', 'DateString'].includes(simple) && Number.isNaN(Date.parse(value))) return `${name} is no date`
}
