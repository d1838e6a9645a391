// The suite of the AI SDK's provider for OpenAI's interface: `ai_sdk_suite.mjs URL [--keyed URL KEY]`.

import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import {
  APICallError, NoObjectGeneratedError, Output, embed, embedMany, generateObject, generateText, stepCountIs, streamObject,
  streamText, tool,
} from 'ai'
import { z } from 'zod'

import { all, check, main, refused, same, TOPIC } from './suite.mjs'

globalThis.AI_SDK_LOG_WARNINGS = false

function provider(server, options = {}) {
  const settings = { includeUsage: true, supportsStructuredOutputs: true, ...options }
  return createOpenAICompatible({ name: 'walsh', baseURL: `${server.url}/v1`, ...settings })
}

/** What all calls have, unless they say otherwise: one try, and the likeliest tokens. */
function common(server, options = {}) {
  const model = provider(server)(server.model)
  return { model, prompt: TOPIC, temperature: 0, seed: 1, maxOutputTokens: 24, maxRetries: 0, ...options }
}

/** Streams, and fails where the stream has an error in it. */
async function streamed(options) {
  const errors = []
  const result = streamText({ ...options, onError: ({ error }) => errors.push(error) })
  const parts = await all(result.fullStream)
  if (errors.length) throw errors[0]
  return { parts, text: await result.text, usage: await result.usage, finishReason: await result.finishReason }
}

function addsUp(usage) {
  same(usage.totalTokens, usage.inputTokens + usage.outputTokens, 'total tokens')
  return [usage.inputTokens, usage.outputTokens]
}

async function a_stream_says_what_the_whole_text_does(server) {
  const whole = await generateText(common(server))
  check(whole.text.trim(), 'it says nothing')
  const { parts, text, usage, finishReason } = await streamed(common(server))
  const deltas = parts.filter(part => part.type === 'text-delta')
  same([text, deltas.map(part => part.text).join('')], [whole.text, whole.text], 'texts')
  check(deltas.length > 10, 'it comes in few pieces', deltas.length)
  same([finishReason, whole.finishReason], ['length', 'length'], 'finishReason')
  same(addsUp(usage), addsUp(whole.usage), 'usage')
  same(whole.usage.outputTokens, 24, 'generated tokens')
  same(whole.warnings ?? [], [], 'warnings')
}

async function a_seed_decides(server) {
  const text = async seed => (await generateText(common(server, { temperature: 1, topP: 0.95, seed }))).text
  const texts = await Promise.all([5, 5, 6, 7].map(text))
  same(texts[1], texts[0], 'the same seed again')
  check(new Set(texts).size > 1, 'seeds change nothing', texts)
}

async function a_text_to_stop_at_is_not_in_the_answer(server) {
  const whole = (await generateText(common(server))).text
  const stop = whole.split(/\s+/)[5]
  const stopSequences = [stop, '\u2603 never']
  const { text, finishReason } = await generateText(common(server, { stopSequences }))
  same([text, finishReason], [whole.slice(0, whole.indexOf(stop)), 'stop'], 'text, finishReason')
  same((await streamed(common(server, { stopSequences }))).text, text, 'streamed text')
}

async function a_system_text_and_a_conversation_are_read(server) {
  const plain = await generateText(common(server))
  const told = await generateText(common(server, { system: 'You speak of nothing but the sea.' }))
  check(told.text !== plain.text, 'a system text changes nothing')
  const messages = [
    { role: 'user', content: 'My name is Ada.' }, { role: 'assistant', content: 'Hello Ada.' },
    { role: 'user', content: [{ type: 'text', text: 'Say my name.' }] },
  ]
  const talk = await generateText(common(server, { prompt: undefined, messages }))
  const short = await generateText(common(server, { prompt: 'Say my name.' }))
  check(talk.usage.inputTokens > short.usage.inputTokens + 8, 'the conversation is not in the prompt', talk.usage)
}

const Lighthouse = z.object({
  name: z.string().max(16),
  kind: z.enum(['sea', 'river', '\u6d77']),
  place: z.object({ height: z.number().int().min(1).max(200), keeper: z.string().max(12).nullable() }),
  colours: z.array(z.enum(['red', 'white'])).min(1).max(3),
  lit: z.boolean(),
})
const DESCRIBE = { prompt: 'Describe a lighthouse.', schema: Lighthouse, maxOutputTokens: 300 }

async function an_object_is_one_of_its_schema(server) {
  for (const seed of [1, 2, 3]) {
    const { object, finishReason } = await generateObject(common(server, { ...DESCRIBE, temperature: 1, seed }))
    Lighthouse.parse(object)
    same(finishReason, 'stop', 'finishReason')
  }
}

async function an_object_grows_as_it_streams(server) {
  const result = streamObject(common(server, DESCRIBE))
  const parts = await all(result.partialObjectStream)
  const object = Lighthouse.parse(await result.object)
  check(parts.length > 4, 'it comes in few pieces', parts.length)
  same(parts.at(-1), object, 'the last part')
  same((await generateObject(common(server, DESCRIBE))).object, object, 'the object at once')
}

async function a_text_can_have_a_form(server) {
  const { schema, ...options } = DESCRIBE
  const { output } = await generateText(common(server, { ...options, output: Output.object({ schema }) }))
  Lighthouse.parse(output)
}

async function a_choice_is_one_of_those_given(server) {
  const options = { output: 'enum', enum: ['storm', 'fog', '\u9727'], prompt: 'What is the weather?' }
  const { object } = await generateObject(common(server, { ...options, temperature: 1, maxOutputTokens: 60 }))
  check(options.enum.includes(object), 'choice', object)
}

async function an_object_cut_short_is_the_packages_own_error(server) {
  await refused(NoObjectGeneratedError, () => generateObject(common(server, { ...DESCRIBE, maxOutputTokens: 4 })))
}

const Weather = z.object({
  city: z.string().max(24), unit: z.enum(['celsius', 'fahrenheit', '\u5ea6']), days: z.number().int().min(1).max(7),
})

/** Tools, and what they were called with. */
function tools() {
  const heard = []
  const execute = given => {
    heard.push(given)
    return { sky: 'thunder over the harbour' }
  }
  const get_weather = tool({ description: 'The weather of a city', inputSchema: Weather, execute })
  const ring_bell = tool({ description: 'Rings the bell', inputSchema: z.object({ times: z.number().int().min(1).max(9) }) })
  return { heard, tools: { get_weather, ring_bell } }
}

const CALL = { prompt: 'What is the weather in Paris?', maxOutputTokens: 300 }

/** Has the provider say that there is to be one call. */
const ONE = { providerOptions: { walsh: { parallel_tool_calls: false } } }

async function a_required_tool_is_called_and_its_result_read(server) {
  const given = tools()
  const { steps, text } = await generateText(common(server, {
    ...CALL, ...ONE, tools: given.tools, stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({
      toolChoice: stepNumber === 0 ? { type: 'tool', toolName: 'get_weather' } : 'none',
    }),
  }))
  same(steps.length, 2, 'steps')
  same([steps[0].finishReason, steps[0].toolCalls.length], ['tool-calls', given.heard.length], 'finishReason, calls')
  check(given.heard.length > 0, 'the tool was not called')
  given.heard.forEach(input => Weather.parse(input))
  check(text.trim(), 'it says nothing of the result', steps[1].content)
  check(steps[1].usage.inputTokens > 60, 'the result is not in the prompt', steps[1].usage)
}

async function tools_are_called_as_they_stream(server) {
  const { tools: both } = tools()
  const options = common(server, { ...CALL, ...ONE, tools: both, toolChoice: 'required' })
  const whole = await generateText(options)
  const { parts, finishReason } = await streamed(options)
  const calls = parts.filter(part => part.type === 'tool-call').map(part => [part.toolName, part.input])
  same(calls, whole.toolCalls.map(call => [call.toolName, call.input]), 'calls')
  check(calls.length > 0 && finishReason === 'tool-calls', 'calls, finishReason', [calls, finishReason])
  const deltas = parts.filter(part => part.type === 'tool-input-delta').map(part => part.delta)
  same(JSON.parse(deltas.join('')), calls[0][1], 'streamed input')
  check(deltas.length > 4, 'it comes in few pieces', deltas)
  check(!parts.some(part => part.type === 'tool-error' || part.type === 'error'), 'errors', parts)
}

async function a_named_tool_is_the_one_that_is_called(server) {
  for (const toolName of ['get_weather', 'ring_bell']) {
    const toolChoice = { type: 'tool', toolName }
    const { toolCalls } = await generateText(common(server, { ...CALL, tools: tools().tools, toolChoice, temperature: 1 }))
    check(toolCalls.length > 0 && toolCalls.every(call => call.toolName === toolName && !call.invalid), 'calls', toolCalls)
  }
}

async function none_is_called_where_none_may_be(server) {
  const options = { prompt: CALL.prompt, tools: tools().tools, toolChoice: 'none', temperature: 1 }
  const { toolCalls, text } = await generateText(common(server, options))
  check(toolCalls.length === 0 && text.trim(), 'a call, or no text', [toolCalls, text])
}

async function texts_go_on(server) {
  const model = provider(server).completionModel(server.model)
  const { text } = await generateText(common(server, { model, prompt: 'One, two, three,', maxOutputTokens: 8 }))
  check(text.trim(), 'it says nothing')
  const result = await streamed(common(server, { model, prompt: 'One, two, three,', maxOutputTokens: 8 }))
  same([result.text, result.usage.outputTokens], [text, 8], 'streamed text, tokens')
}

async function texts_are_embedded(server) {
  const model = provider(server).embeddingModel(server.model)
  const values = ['a tower', '\u706f\u53f0', 'x']
  const { embeddings, usage } = await embedMany({ model, values, maxRetries: 0 })
  check(embeddings.every(vector => Math.abs(Math.hypot(...vector) - 1) < 1e-5), 'lengths')
  check(usage.tokens > 3, 'tokens', usage)
  for (const [place, value] of values.entries()) {
    const { embedding } = await embed({ model, value, maxRetries: 0 })
    const furthest = Math.max(...embedding.map((x, at) => Math.abs(x - embeddings[place][at])))
    check(furthest < 1e-3, `${value} alone and in company`, furthest)
  }
}

async function errors_are_the_packages_own(server) {
  const unknown = common(server, { model: provider(server)('no-such-model') })
  const long = common(server, { prompt: 'lighthouse '.repeat(10_000) })
  for (const call of [generateText, streamed]) {
    const missing = await refused(APICallError, () => call(unknown))
    same([missing.statusCode, missing.isRetryable], [404, false], 'statusCode, isRetryable')
    check(missing.message.includes('no-such-model'), 'message', missing.message)
    const wrong = await refused(APICallError, () => call(common(server, { topP: 7 })))
    same(wrong.statusCode, 400, 'statusCode')
    const full = await refused(APICallError, () => call(long))
    same([full.statusCode, full.data.error.code], [400, 'context_length_exceeded'], 'statusCode, code')
  }
}

async function a_request_that_is_given_up_ends(server) {
  const gone = new AbortController()
  setTimeout(() => gone.abort(), 100)
  const providerOptions = { walsh: { ignore_eos: true } }
  const options = common(server, { maxOutputTokens: 4000, providerOptions, abortSignal: gone.signal })
  await refused(DOMException, () => generateText(options))
  check((await generateText(common(server))).text.trim(), 'it says nothing afterwards')
}

async function keys_decide_who_is_let_in(server) {
  const at = apiKey => provider(server, { baseURL: `${server.keyed}/v1`, apiKey })(server.model)
  for (const call of [generateText, streamed]) {
    const error = await refused(APICallError, () => call(common(server, { model: at('a-key-of-nothing') })))
    same([error.statusCode, error.data.error.code], [401, 'invalid_api_key'], 'statusCode, code')
  }
  check((await generateText(common(server, { model: at(server.key) }))).text.trim(), 'it says nothing')
}
keys_decide_who_is_let_in.needsKey = true

await main('AI SDK', [
  a_stream_says_what_the_whole_text_does,
  a_seed_decides,
  a_text_to_stop_at_is_not_in_the_answer,
  a_system_text_and_a_conversation_are_read,
  an_object_is_one_of_its_schema,
  an_object_grows_as_it_streams,
  a_text_can_have_a_form,
  a_choice_is_one_of_those_given,
  an_object_cut_short_is_the_packages_own_error,
  a_required_tool_is_called_and_its_result_read,
  tools_are_called_as_they_stream,
  a_named_tool_is_the_one_that_is_called,
  none_is_called_where_none_may_be,
  texts_go_on,
  texts_are_embedded,
  errors_are_the_packages_own,
  a_request_that_is_given_up_ends,
  keys_decide_who_is_let_in,
])
