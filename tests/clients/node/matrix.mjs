// The official Node client against a gateway: one scenario per line of input, one line of JSON for each.
//
//     printf 'plain\n' | node matrix.mjs http://127.0.0.1:4000/v1 sk-sg-...
import readline from "node:readline";
import OpenAI from "openai";
import { makeParseableResponseFormat } from "openai/lib/parser";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 10_000 });
const messages = [{ role: "user", content: "What is it?" }];
const chat = { model: "support", messages };
const tools = ["weather", "time"].map((name) => ({
  type: "function",
  function: { name, parameters: { type: "object" } },
}));

const textOf = (chunks, index = 0) =>
  chunks
    .flatMap((chunk) => chunk.choices)
    .filter((choice) => choice.index === index)
    .map((choice) => choice.delta.content ?? "")
    .join("");

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const scenarios = {
  async plain() {
    const answer = await client.chat.completions.create(chat);
    return { text: answer.choices[0].message.content, usage: answer.usage.total_tokens };
  },
  async stream() {
    const options = { ...chat, stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(await client.chat.completions.create(options));
    return { text: textOf(chunks), usage: chunks.at(-1).usage.completion_tokens };
  },
  async stream_helper() {
    const stream = client.chat.completions.stream(chat);
    const pieces = [];
    stream.on("content", (piece) => pieces.push(piece));
    return { text: await stream.finalContent(), joined: pieces.join("") };
  },
  async raw() {
    const { data, response, request_id } = await client.chat.completions.create(chat).withResponse();
    return {
      text: data.choices[0].message.content,
      release: response.headers.get("x-sluicegate-release"),
      request_id: request_id.slice(0, 4),
    };
  },
  async several() {
    const plain = await client.chat.completions.create({ ...chat, n: 3 });
    const chunks = await collect(await client.chat.completions.create({ ...chat, n: 3, stream: true }));
    return {
      plain: plain.choices.map((choice) => choice.message.content),
      streamed: [0, 1, 2].map((index) => textOf(chunks, index)),
    };
  },
  async tools() {
    const plain = await client.chat.completions.create({ ...chat, tools });
    const streamed = await client.chat.completions.stream({ ...chat, tools }).finalMessage();
    const told = (message) => message.tool_calls.map((call) => [call.id, call.function.name, call.function.arguments]);
    return { plain: told(plain.choices[0].message), streamed: told(streamed) };
  },
  async parse() {
    const format = {
      type: "json_schema",
      json_schema: { name: "city", strict: true, schema: { type: "object" } },
    };
    const answer = await client.chat.completions.parse({
      ...chat,
      response_format: makeParseableResponseFormat(format, JSON.parse),
    });
    return answer.choices[0].message.parsed;
  },
  async logprobs() {
    const answer = await client.chat.completions.create({ ...chat, logprobs: true });
    return answer.choices[0].logprobs.content.map((token) => token.token);
  },
  async reasoning() {
    const answer = await client.chat.completions.create(chat);
    const chunks = await collect(await client.chat.completions.create({ ...chat, stream: true }));
    const streamed = chunks.map((chunk) => chunk.choices[0].delta.reasoning_content).filter(Boolean);
    return { plain: answer.choices[0].message.reasoning_content, streamed };
  },
  async completions() {
    const plain = await client.completions.create({ model: "support", prompt: "say", n: 2 });
    const chunks = await collect(await client.completions.create({ model: "support", prompt: "say", stream: true }));
    return {
      plain: plain.choices.map((choice) => choice.text),
      streamed: chunks.map((chunk) => chunk.choices[0].text).join(""),
    };
  },
  async embeddings() {
    const usual = await client.embeddings.create({ model: "vllm/tiny", input: ["a", "b"] });
    const floats = await client.embeddings.create({ model: "vllm/tiny", input: "a", encoding_format: "float" });
    return { usual: usual.data.map((item) => item.embedding), floats: floats.data[0].embedding };
  },
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    const one = await client.models.retrieve("support");
    return { listed: ids.includes("support"), id: one.id, digest: one.digest };
  },
  async at_once() {
    const counts = [1, 2, 3, 4, 5, 6, 7, 8];
    const answers = await Promise.all(counts.map((n) => client.chat.completions.create({ ...chat, n })));
    return answers.map((answer) => answer.choices.length);
  },
  async ask() {
    await client.chat.completions.create(chat);
    return "answered";
  },
  async ask_streaming() {
    const chunks = [];
    try {
      for await (const chunk of await client.chat.completions.create({ ...chat, stream: true })) chunks.push(chunk);
    } catch (error) {
      return { ...told(error), some: chunks.length > 0 };
    }
    return "answered";
  },
  async wrong_key() {
    await client.withOptions({ apiKey: "sk-sg-nobody" }).chat.completions.create(chat);
  },
  async unknown_model() {
    await client.chat.completions.create({ ...chat, model: "nonesuch" });
  },
  async retried() {
    const answer = await client.chat.completions.create(chat, { maxRetries: 1 });
    return answer.choices[0].message.content;
  },
  async too_slow() {
    await client.chat.completions.create(chat, { timeout: 100 });
  },
  async nobody_there() {
    await client.withOptions({ baseURL: "http://127.0.0.1:9/v1" }).chat.completions.create(chat);
  },
  async aborted() {
    const stream = await client.chat.completions.create({ ...chat, stream: true });
    for await (const chunk of stream) {
      stream.controller.abort();
      return chunk.choices[0].delta.role;
    }
  },
};

function told(error) {
  const { status = null, code = null, type = null, param = null } = error;
  return { class: error.constructor.name, status, code, type, param };
}

for await (const name of readline.createInterface({ input: process.stdin })) {
  let line;
  try {
    line = { result: await scenarios[name]() };
  } catch (error) {
    line = error instanceof OpenAI.OpenAIError ? { error: told(error) } : { crash: String(error?.stack ?? error) };
  }
  process.stdout.write(JSON.stringify(line) + "\n");
}
