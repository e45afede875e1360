// The accounts that may send events, from the variable ACCOUNTS: a JSON object with the
// secret of each account, or with the secret and a database role that is bound to it:
//
//   {"5510": "…", "5511": {"secret": "…", "user": "webhook_5511", "password": "…"}}
import { createHash, timingSafeEqual } from 'node:crypto'

const SHORTEST = 16 // characters of a secret

const digest = (text) => createHash('sha256').update(text).digest()

// Return a function that finds the account with a secret, and with a name unless that is
// undefined.  It compares digests, and always all of them, so that its run time reveals
// nothing.
function finder(accounts) {
  return (name, secret) => {
    const given = digest(secret)
    let found
    for (const account of accounts) {
      const same = timingSafeEqual(account.digest, given)
      if (same && (name === undefined || name === account.name)) found = account
    }
    return found
  }
}

// Return the accounts and their finder.  Throws an error of one line, without secrets.
export function readAccounts(text) {
  const wrong = (reason) => { throw new Error(`ACCOUNTS ${reason}: set it to a JSON object such as {"5510": "secret"}`) }
  if (!text) wrong('is not set')
  let object
  try {
    object = JSON.parse(text)
  } catch {
    wrong('is not JSON')
  }
  if (object === null || typeof object !== 'object' || Array.isArray(object) || Object.keys(object).length === 0) wrong('names no account')
  const accounts = Object.entries(object).map(([name, value]) => {
    const { secret, user, password } = typeof value === 'string' ? { secret: value } : value ?? {}
    if (typeof secret !== 'string' || secret.length < SHORTEST) wrong(`has a secret of fewer than ${SHORTEST} characters for account ${JSON.stringify(name)}`)
    if (name.includes(':')) wrong(`has a colon in the name of account ${JSON.stringify(name)}`)
    return { name, digest: digest(secret), user, password }
  })
  if (new Set(accounts.map((account) => account.digest.toString('hex'))).size < accounts.length) wrong('has the same secret twice')
  return { accounts, find: finder(accounts) }
}
