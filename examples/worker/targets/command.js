// Passes the payload of each delivery to the standard input of a command:
// node worker.js SYNC command COMMAND...
import { spawn } from 'node:child_process'
import { once } from 'node:events'

export default function (command, ...args) {
  if (!command) throw new Error('usage: node worker.js SYNC command COMMAND...')
  return {
    batch: 10,
    async deliver(delivery) {
      const child = spawn(command, args, { stdio: ['pipe', 'ignore', 'pipe'] })
      const ended = once(child, 'close')
      child.stdin.on('error', () => {}).end(delivery.payload)
      let message = ''
      child.stderr.on('data', (data) => { if (message.length < 1000) message += data })
      const [status] = await ended
      if (status !== 0) throw new Error(message || `status ${status}`)
    },
  }
}
