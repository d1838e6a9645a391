// The suite of npm `openai`: `openai_suite.mjs URL [--keyed URL KEY]`.

import OpenAI from 'openai'
import { LengthFinishReasonError } from 'openai/error'
import { zodFunction, zodResponseFormat, zodTextFormat } from 'openai/helpers/zod'
import { z } from 'zod'

import { all, check, main, refused, same, TOPIC } from './suite.mjs'

const clients = new Map()

/** A client that asks once, so that an error is not hidden behind a second try. */
function client(server, options = {}) {
  const settings = { baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0, timeout: 60_000, ...options }
  const key = JSON.stringify(settings)
  if (!clients.has(key)) clients.set(key, new OpenAI(settings))
  return clients.get(key)
}

const user = content => [{ role: 'user', content }]

/** An answer by the likeliest tokens, unless the options say otherwise. */
function ask(server, options = {}) {
  const common = { model: server.model, messages: user(TOPIC), temperature: 0, seed: 1, max_tokens: 24 }
  return client(server).chat.completions.create({ ...common, ...options })
}

const said = completion => completion.choices[0].message.content

/** What chunks say of one choice. */
function textOf(chunks, index = 0) {
  const choices = chunks.flatMap(chunk => chunk.choices).filter(choice => choice.index === index)
  return choices.map(choice => choice.delta.content ?? '').join('')
}

function addsUp(usage) {
  same(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, 'total tokens')
  return [usage.prompt_tokens, usage.completion_tokens]
}

async function a_stream_says_what_the_whole_answer_does(server) {
  const whole = await ask(server)
  check(said(whole).trim(), 'it says nothing')
  const chunks = await all(await ask(server, { stream: true, stream_options: { include_usage: true } }))
  same(textOf(chunks), said(whole), 'text')
  check(chunks.length > 10, 'it comes in few pieces', chunks.length)
  same(addsUp(chunks.at(-1).usage), addsUp(whole.usage), 'usage')
  const reasons = chunks.flatMap(chunk => chunk.choices).map(choice => choice.finish_reason)
  same([reasons.at(-1), reasons.slice(0, -1).every(reason => reason === null)], ['length', true], 'finish_reasons')
}

async function the_streaming_helper_puts_the_answer_together(server) {
  const whole = said(await ask(server))
  const stop = whole.split(/\s+/)[8]
  const stream = client(server).chat.completions.stream(
    { model: server.model, messages: user(TOPIC), temperature: 0, seed: 1, max_tokens: 24, stop })
  const deltas = []
  stream.on('content', delta => deltas.push(delta))
  const text = await stream.finalContent()
  same([text, deltas.join('')], Array(2).fill(whole.slice(0, whole.indexOf(stop))), 'texts')
}

async function a_stream_can_be_left(server) {
  const stream = await ask(server, { stream: true, max_tokens: 2000, temperature: 1 })
  let count = 0
  for await (const _ of stream) if ((count += 1) > 3) break
  check(stream.controller.signal.aborted, 'it goes on')
  check(said(await ask(server)).trim(), 'it says nothing afterwards')
}

async function several_are_served_at_once(server) {
  const asks = [1, 2, 3, 4, 5, 6].map(async number =>
    textOf(await all(await ask(server, { messages: user(`Say ${number}.`), stream: true, max_tokens: 8 }))))
  check((await Promise.all(asks)).every(text => text.trim()), 'texts')
}

async function n_answers_are_told_apart(server) {
  const options = { n: 3, temperature: 1, max_tokens: 12 }
  const { choices, usage } = await ask(server, options)
  same(choices.map(choice => choice.index).sort(), [0, 1, 2], 'indices')
  check(new Set(choices.map(choice => choice.message.content)).size > 1, 'all say the same', choices)
  const chunks = await all(await ask(server, { ...options, stream: true, stream_options: { include_usage: true } }))
  for (const choice of choices) same(textOf(chunks, choice.index), choice.message.content, `answer ${choice.index}`)
  same(addsUp(chunks.at(-1).usage), addsUp(usage), 'usage')
}

async function a_text_to_stop_at_is_not_in_the_answer(server) {
  const whole = said(await ask(server))
  const stop = whole.split(/\s+/)[5]
  const expected = whole.slice(0, whole.indexOf(stop))
  for (const given of [stop, [stop, '\u2603 never']]) {
    const [choice] = (await ask(server, { stop: given })).choices
    same([choice.message.content, choice.finish_reason], [expected, 'stop'], 'text, finish_reason')
  }
  same(textOf(await all(await ask(server, { stop, stream: true }))), expected, 'streamed text')
}

async function logprobs_are_those_of_the_text(server) {
  const options = { logprobs: true, top_logprobs: 5, max_tokens: 12 }
  const whole = await ask(server, options)
  const entries = whole.choices[0].logprobs.content
  same(entries.length, whole.usage.completion_tokens, 'tokens')
  for (const entry of entries) {
    same(entry.top_logprobs.length, 5, 'likeliest tokens')
    same([entry.token, entry.logprob], [entry.top_logprobs[0].token, entry.top_logprobs[0].logprob], 'the likeliest')
    const sum = entry.top_logprobs.reduce((sum, top) => sum + Math.exp(top.logprob), 0)
    check(sum <= 1 + 1e-4, 'their probabilities add up to more than 1', sum)
  }
  const bytes = entries.flatMap(entry => entry.bytes)
  same(new TextDecoder().decode(new Uint8Array(bytes)), said(whole), 'the bytes of the tokens')
  const chunks = await all(await ask(server, { ...options, stream: true }))
  const streamed = chunks.flatMap(chunk => chunk.choices).flatMap(choice => choice.logprobs?.content ?? [])
  same(streamed.map(entry => entry.token), entries.map(entry => entry.token), 'streamed tokens')
}

const Lighthouse = z.object({
  name: z.string().max(16),
  kind: z.enum(['sea', 'river', '\u6d77']),
  place: z.object({ height: z.number().int().min(1).max(200), keeper: z.string().max(12).nullable() }),
  colours: z.array(z.enum(['red', 'white'])).min(1).max(3),
  lit: z.boolean(),
})
const DESCRIBE = { messages: user('Describe a lighthouse.'), max_tokens: 300 }

async function a_strict_schema_is_kept_and_parsed(server) {
  for (const seed of [1, 2, 3]) {
    const completion = await client(server).chat.completions.parse({
      model: server.model, ...DESCRIBE, temperature: 1, seed, response_format: zodResponseFormat(Lighthouse, 'lighthouse'),
    })
    const { parsed, content } = completion.choices[0].message
    same(Lighthouse.parse(JSON.parse(content)), parsed, 'what was parsed')
  }
}

async function a_strict_schema_is_kept_as_it_streams(server) {
  const stream = client(server).chat.completions.stream({
    model: server.model, ...DESCRIBE, temperature: 0, response_format: zodResponseFormat(Lighthouse, 'lighthouse'),
  })
  const completion = await stream.finalChatCompletion()
  Lighthouse.parse(completion.choices[0].message.parsed)
}

async function a_schema_cut_short_is_the_packages_own_error(server) {
  const response_format = zodResponseFormat(Lighthouse, 'lighthouse')
  await refused(LengthFinishReasonError, () =>
    client(server).chat.completions.parse({ model: server.model, ...DESCRIBE, max_tokens: 4, response_format }))
}

const Weather = z.object({
  city: z.string().max(24), unit: z.enum(['celsius', 'fahrenheit', '\u5ea6']), days: z.number().int().min(1).max(7),
})
const TOOLS = [zodFunction({ name: 'get_weather', description: 'The weather of a city', parameters: Weather })]
const QUESTION = user('What is the weather in Paris?')
const CALL = {
  messages: QUESTION, tools: TOOLS, tool_choice: 'required', parallel_tool_calls: false, max_tokens: 200,
}

async function a_required_call_is_valid_and_has_a_second_turn(server) {
  const completion = await client(server).chat.completions.parse({ model: server.model, ...CALL, temperature: 0 })
  const [{ message, finish_reason }] = completion.choices
  same([message.tool_calls.length, finish_reason], [1, 'tool_calls'], 'calls, finish_reason')
  const [call] = message.tool_calls
  same(Weather.parse(JSON.parse(call.function.arguments)), call.function.parsed_arguments, 'arguments')
  const turn = content => ask(server, {
    messages: [...QUESTION, message, { role: 'tool', tool_call_id: call.id, content }], tools: TOOLS, tool_choice: 'none',
  })
  const [long, short] = [await turn('Thunder over the harbour, and rain'), await turn('Sun')]
  check(said(long).trim() && !long.choices[0].message.tool_calls, 'an answer in words', long)
  check(long.usage.prompt_tokens > short.usage.prompt_tokens, 'the result is not in the prompt', long.usage)
}

async function a_named_tool_is_called(server) {
  const bell = { type: 'function', function: { name: 'ring_bell', parameters: { type: 'object', properties: {} } } }
  const tool_choice = { type: 'function', function: { name: 'ring_bell' } }
  const [{ message }] = (await ask(server, { ...CALL, tools: [...TOOLS, bell], tool_choice })).choices
  same(message.tool_calls.map(call => call.function.name), ['ring_bell'], 'tools')
  JSON.parse(message.tool_calls[0].function.arguments)
}

async function streamed_calls_add_up(server) {
  const [whole] = (await ask(server, CALL)).choices[0].message.tool_calls
  const chunks = await all(await ask(server, { ...CALL, stream: true }))
  const parts = chunks.flatMap(chunk => chunk.choices).flatMap(choice => choice.delta.tool_calls ?? [])
  check(parts.length > 4, 'arguments come in few pieces', parts.length)
  check(parts[0].id && parts.slice(1).every(part => !part.id && !part.function.name), 'a name or an id comes twice', parts)
  same(parts.map(part => part.function.arguments ?? '').join(''), whole.function.arguments, 'arguments')
  const stream = client(server).chat.completions.stream({ model: server.model, ...CALL, temperature: 0, seed: 1 })
  const call = await stream.finalFunctionToolCall()
  same([call.name, call.arguments], ['get_weather', whole.function.arguments], 'the call by the helper')
}

async function tools_are_run_by_the_packages_own_loop(server) {
  const heard = []
  const get_weather = given => {
    heard.push(given)
    return 'Thunder over the harbour'
  }
  const runner = client(server).chat.completions.runTools({
    model: server.model, messages: QUESTION, temperature: 0, max_tokens: 60,
    tool_choice: { type: 'function', function: { name: 'get_weather' } },
    tools: [zodFunction({ name: 'get_weather', parameters: Weather, function: get_weather })],
  }, { maxChatCompletions: 2 })
  await runner.done()
  check(heard.length > 0, 'the tool was not called')
  heard.forEach(given => Weather.parse(given))
  check(runner.messages.some(message => message.role === 'tool'), 'messages', runner.messages)
}

async function responses_stream_and_go_on(server) {
  const responses = client(server).responses
  const common = { model: server.model, temperature: 0, max_output_tokens: 16 }
  const first = await responses.create({ ...common, input: TOPIC })
  check(first.output_text.trim(), 'it says nothing')
  const events = await all(await responses.create({ ...common, input: TOPIC, stream: true }))
  same(events.map(event => event.sequence_number), events.map((_, index) => index), 'sequence_number')
  const kinds = events.map(event => event.type)
  same([kinds[0], kinds.at(-1)], ['response.created', 'response.incomplete'], 'the first and the last event')
  const text = events.filter(event => event.type === 'response.output_text.delta').map(event => event.delta).join('')
  same(text, first.output_text, 'text')
  const next = await responses.create({ ...common, input: 'Go on.', previous_response_id: first.id })
  const items = [{ role: 'user', content: TOPIC }, ...first.output, { role: 'user', content: 'Go on.' }]
  const whole = await responses.create({ ...common, input: items })
  same([next.output_text, next.usage.input_tokens], [whole.output_text, whole.usage.input_tokens], 'the same by hand')
}

async function responses_keep_to_a_schema(server) {
  const options = { model: server.model, input: 'Describe a lighthouse.', max_output_tokens: 300, temperature: 0 }
  const text = { format: zodTextFormat(Lighthouse, 'lighthouse') }
  Lighthouse.parse((await client(server).responses.parse({ ...options, text })).output_parsed)
  const final = await client(server).responses.stream({ ...options, text }).finalResponse()
  Lighthouse.parse(final.output_parsed)
}

async function responses_call_tools(server) {
  const [{ function: { name, parameters } }] = TOOLS
  const tools = [{ type: 'function', name, parameters, strict: true }]
  const common = { model: server.model, temperature: 0, max_output_tokens: 200, tools }
  const first = await client(server).responses.create(
    { ...common, input: QUESTION, tool_choice: 'required', parallel_tool_calls: false })
  same(first.output.map(item => item.type), ['function_call'], 'items')
  Weather.parse(JSON.parse(first.output[0].arguments))
  const output = { type: 'function_call_output', call_id: first.output[0].call_id, output: 'Thunder' }
  const second = await client(server).responses.create(
    { ...common, input: [output], previous_response_id: first.id, tool_choice: 'none', max_output_tokens: 12 })
  check(second.output_text.trim(), 'it says nothing of the result')
}

async function embeddings_are_the_same_in_both_forms(server) {
  const embed = options => client(server).embeddings.create({ model: server.model, input: ['a tower', '\u706f\u53f0'], ...options })
  const [own, floats] = [await embed({}), await embed({ encoding_format: 'float' })]
  same(own.data.map(item => item.index), [0, 1], 'indices')
  for (const [place, item] of own.data.entries()) {
    const other = floats.data[place].embedding
    check(item.embedding.length === other.length && other.length > 100, 'width', other.length)
    check(item.embedding.every((x, at) => x === Math.fround(other[at])), 'numbers')
    check(Math.abs(Math.hypot(...other) - 1) < 1e-5, 'length', Math.hypot(...other))
  }
}

async function texts_go_on(server) {
  const common = { model: server.model, prompt: 'One, two, three,', temperature: 0, max_tokens: 8 }
  const whole = await client(server).completions.create({ ...common, logprobs: 2, echo: true })
  check(whole.choices[0].text.startsWith(common.prompt), 'echo', whole.choices[0].text)
  same(whole.choices[0].logprobs.tokens.join(''), whole.choices[0].text, 'tokens')
  const chunks = await all(await client(server).completions.create({ ...common, stream: true }))
  const text = chunks.flatMap(chunk => chunk.choices).map(choice => choice.text).join('')
  same(common.prompt + text, whole.choices[0].text, 'streamed text')
}

async function models_are_listed_and_found(server) {
  const models = await all(client(server).models.list())
  check(models.some(model => model.id === server.model), 'models', models)
  same((await client(server).models.retrieve(server.model)).id, server.model, 'id')
}

async function errors_are_the_packages_own(server) {
  for (const stream of [false, true]) {
    const unknown = await refused(OpenAI.NotFoundError, () => ask(server, { model: 'no-such-model', stream }))
    same([unknown.status, unknown.code, unknown.param], [404, 'model_not_found', 'model'], 'status, code, param')
    const wrong = await refused(OpenAI.BadRequestError, () => ask(server, { temperature: -1, stream }))
    same([wrong.status, wrong.param, wrong.type], [400, 'temperature', 'invalid_request_error'], 'status, param, type')
    check(wrong.requestID, 'requestID', wrong.requestID)
    const messages = user('lighthouse '.repeat(10_000))
    const long = await refused(OpenAI.BadRequestError, () => ask(server, { messages, stream }))
    same(long.code, 'context_length_exceeded', 'code')
  }
  await refused(OpenAI.BadRequestError, () => ask(server, { messages: [] }))
  await refused(OpenAI.NotFoundError, () => client(server).responses.retrieve('resp_none'))
}

async function a_request_that_is_given_up_is_the_packages_own_error(server) {
  const gone = new AbortController()
  const options = { model: server.model, messages: user(TOPIC), max_tokens: 4000, ignore_eos: true }
  const asked = client(server).chat.completions.create(options, { signal: gone.signal })
  setTimeout(() => gone.abort(), 100)
  await refused(OpenAI.APIUserAbortError, () => asked)
  check(said(await ask(server)).trim(), 'it says nothing afterwards')
}

async function keys_decide_who_is_let_in(server) {
  const at = apiKey => client(server, { baseURL: `${server.keyed}/v1`, apiKey })
  const options = { model: server.model, messages: user(TOPIC), max_tokens: 2 }
  for (const stream of [false, true]) {
    const call = () => at('a-key-of-nothing').chat.completions.create({ ...options, stream })
    const error = await refused(OpenAI.AuthenticationError, call)
    same([error.status, error.code], [401, 'invalid_api_key'], 'status, code')
  }
  check(said(await at(server.key).chat.completions.create(options)), 'it says nothing')
}
keys_decide_who_is_let_in.needsKey = true

await main('openai (npm)', [
  a_stream_says_what_the_whole_answer_does,
  the_streaming_helper_puts_the_answer_together,
  a_stream_can_be_left,
  several_are_served_at_once,
  n_answers_are_told_apart,
  a_text_to_stop_at_is_not_in_the_answer,
  logprobs_are_those_of_the_text,
  a_strict_schema_is_kept_and_parsed,
  a_strict_schema_is_kept_as_it_streams,
  a_schema_cut_short_is_the_packages_own_error,
  a_required_call_is_valid_and_has_a_second_turn,
  a_named_tool_is_called,
  streamed_calls_add_up,
  tools_are_run_by_the_packages_own_loop,
  responses_stream_and_go_on,
  responses_keep_to_a_schema,
  responses_call_tools,
  embeddings_are_the_same_in_both_forms,
  texts_go_on,
  models_are_listed_and_found,
  errors_are_the_packages_own,
  a_request_that_is_given_up_is_the_packages_own_error,
  keys_decide_who_is_let_in,
])
