// What the suites in JavaScript share: checks that say what came, and a line for each case.

import { isDeepStrictEqual } from 'node:util'

export const TOPIC = 'Write two sentences about lighthouses.'

/** What came is not what was to come. */
class Wrong extends Error {}

const shown = value => String(value instanceof Error ? value : JSON.stringify(value) ?? value).slice(0, 800)

/** Fails the case unless something is so. */
export function check(truth, what, came) {
  if (!truth) throw new Wrong(came === undefined ? what : `${what}: ${shown(came)}`)
}

/** Fails the case unless both are equal. */
export function same(came, expected, what) {
  if (!isDeepStrictEqual(came, expected)) throw new Wrong(`${what}: expected ${shown(expected)}, came ${shown(came)}`)
}

/** The error that a call ends with, which has to be exactly of a kind. */
export async function refused(kind, call) {
  let came
  try {
    came = await call()
  } catch (error) {
    check(error?.constructor === kind, `expected ${kind.name}, came ${error?.constructor?.name}`, error)
    return error
  }
  throw new Wrong(`expected ${kind.name}, came an answer: ${shown(came)}`)
}

/** All that a stream gives. */
export async function all(stream) {
  const parts = []
  for await (const part of stream) parts.push(part)
  return parts
}

function usage(name) {
  console.error(`usage: ${name} URL [--model MODEL] [--keyed URL KEY] [--only TEXT]`)
  process.exit(2)
}

/** Where the server is, what it is asked for, and, if one was given, where a server with a key is. */
function server(name) {
  const found = { model: 'smollm2-135m', only: '' }
  const given = process.argv.slice(2)
  while (given.length) {
    const word = given.shift()
    const values = { '--model': 1, '--keyed': 2, '--only': 1 }[word] ?? 0
    if (given.length < values || (values === 0 && (word.startsWith('-') || found.url))) usage(name)
    if (word === '--model') found.model = given.shift()
    else if (word === '--keyed') [found.keyed, found.key] = [given.shift().replace(/\/$/, ''), given.shift()]
    else if (word === '--only') found.only = given.shift()
    else found.url = word.replace(/\/$/, '')
  }
  return found.url ? found : usage(name)
}

/** Runs the cases in turn against the server that the arguments name, and ends the program. */
export async function main(name, cases) {
  const at = server(name)
  let [ran, failed] = [0, 0]
  for (const one of cases) {
    const title = `${name}: ${one.name}`
    if (!one.name.includes(at.only)) continue
    if (one.needsKey && !at.keyed) {
      console.log(`not run (no --keyed): ${title}`)
      continue
    }
    ran += 1
    const began = performance.now()
    try {
      await one(at)
      console.log(`ok ${title} (${((performance.now() - began) / 1000).toFixed(2)} s)`)
    } catch (error) {
      failed += 1
      const line = /(\w+\.mjs:\d+):\d+\)?$/m.exec((error?.stack ?? '').replaceAll(/^.*\/suite\.mjs.*$/gm, ''))
      const why = error instanceof Wrong ? error.message : `${error?.constructor?.name}: ${error?.message ?? error}`
      console.log(`FAILED ${title}: ${line?.[1] ?? '?'}: ${why.replaceAll(/\s+/g, ' ').slice(0, 1500)}`)
    }
  }
  if (ran === 0) console.error(`${name}: no case ran`)
  process.exit(failed || !ran ? 1 : 0)
}
