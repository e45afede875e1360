// Who may see the page: without a token, only this machine; with one, whoever has it.
import { createHash, timingSafeEqual } from 'node:crypto'

const SHORTEST = 16 // characters of a token
const LOOPBACK = ['127.0.0.1', '::1', 'localhost']

const digest = (text) => createHash('sha256').update(text).digest()

const HEADERS = {
  'content-security-policy': "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
}

// Check every request to the server before its body is read.  Throws an error of one line if
// the configuration would let strangers in.
export function guard(server, { host, token, names }) {
  if (token === '' && (names.length > 0 || !LOOPBACK.includes(host))) throw new Error('BOARD_TOKEN is not set: without it, only this machine may reach the page')
  if (token !== '' && token.length < SHORTEST) throw new Error(`BOARD_TOKEN has fewer than ${SHORTEST} characters`)
  const expected = digest(token)
  // DNS rebinding: another site can make its own name resolve to this address, and the
  // browser then sends that name as Host.
  const hosts = new Set([...LOOPBACK, '[::1]', ...names])

  server.setNotFoundHandler((request, reply) => reply.code(404).send({ error: 'not found' }))
  server.setErrorHandler((error, request, reply) => reply.code(error.statusCode ?? 500).send({ error: error.statusCode < 500 ? error.message : 'internal error' }))
  server.addHook('onRequest', async (request, reply) => {
    reply.headers(HEADERS)
    const name = String(request.headers.host ?? '').replace(/:\d+$/, '').toLowerCase()
    if (!hosts.has(name)) return reply.code(421).send({ error: 'unknown host: name it in BOARD_HOSTS' })
    if (token !== '') {
      const [, basic = ''] = /^Basic ([A-Za-z0-9+/=]+)$/.exec(request.headers.authorization ?? '') ?? []
      const password = Buffer.from(basic, 'base64').toString().replace(/^[^:]*:/, '')
      if (!timingSafeEqual(digest(password), expected)) return reply.code(401).header('www-authenticate', 'Basic realm="board", charset="UTF-8"').send({ error: 'the password is the value of BOARD_TOKEN' })
    }
    if (request.method === 'GET' || request.method === 'HEAD') return
    // Actions need the token, and a header that no page of another site can send.
    if (token === '') return reply.code(403).send({ error: 'actions need BOARD_TOKEN' })
    if (request.headers['x-board'] !== '1') return reply.code(403).send({ error: 'the header x-board is missing' })
  })
}
