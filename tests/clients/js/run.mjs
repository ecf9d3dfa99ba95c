// The official client, unmodified. Reads {url, key, model, busy, lonely} from argv, prints one JSON object of findings.
import OpenAI from "openai";

const asked = JSON.parse(process.argv[2]);
const client = new OpenAI({ baseURL: `${asked.url}/v1`, apiKey: asked.key, maxRetries: 0, timeout: 120_000 });
const model = asked.model;
const messages = [{ role: "user", content: "Say something." }];
const found = {};

const fails = async (call) => {
  try {
    await call();
  } catch (error) {
    return {
      class: error.constructor.name,
      status: error.status ?? null,
      code: error.code ?? null,
      param: error.param ?? null,
      requestID: error.requestID ?? null,
    };
  }
  return null;
};

const models = await client.models.list();
found.models = models.data.map((entry) => entry.id);

const { data: chat, response } = await client.chat.completions
  .create({ model, messages, max_tokens: 8, seed: 3, logprobs: true, top_logprobs: 2 })
  .withResponse();
found.chat = chat;
found.calibration = response.headers.get("x-hemostat-calibration");

const stream = await client.chat.completions.create({
  model, messages, max_tokens: 8, seed: 3, stream: true, stream_options: { include_usage: true },
});
found.streamed = "";
for await (const chunk of stream) {
  found.streamed += chunk.choices[0]?.delta?.content ?? "";
  found.usage = chunk.usage ?? found.usage;
  found.fingerprint = chunk.system_fingerprint;
}

const schema = {
  type: "object", properties: { big: { type: "boolean" } }, required: ["big"], additionalProperties: false,
};
const structured = await client.chat.completions.create({
  model, messages, max_tokens: 100, temperature: 0,
  response_format: { type: "json_schema", json_schema: { name: "city", strict: true, schema } },
});
found.structured = JSON.parse(structured.choices[0].message.content);

const completion = await client.completions.create({ model, prompt: "a", max_tokens: 3, hemostat: { calibration: "off" } });
found.completion = completion.usage.completion_tokens;

const answer = await client.responses.create({ model, input: "Hello", max_output_tokens: 4 });
found.response = answer.model;
found.events = [];
for await (const event of await client.responses.create({ model, input: "Hello", max_output_tokens: 4, stream: true })) {
  found.events.push(event.type);
}

const stranger = new OpenAI({ baseURL: `${asked.url}/v1`, apiKey: "wrong", maxRetries: 0 });
found.unauthorized = await fails(() => stranger.models.list());
found.unknown = await fails(() => client.chat.completions.create({ model: `${model}x`, messages }));
found.bad = await fails(() => client.chat.completions.create({ model, messages, n: 17 }));
found.hemostat = await fails(() => client.chat.completions.create({ model, messages, hemostat: { calibratoin: "off" } }));
found.long = await fails(() => client.completions.create({ model, prompt: "word ".repeat(10_000), max_tokens: 5 }));
found.lonely = await fails(() => client.completions.create({ model: asked.lonely, prompt: "a", max_tokens: 1 }));
found.verify = await fails(() => client.chat.completions.create({ model, messages, hemostat: { verify: true } }));
found.timeout = await fails(() =>
  client.completions.create({ model, prompt: "a", max_tokens: 3500, ignore_eos: true }, { timeout: 300 }),
);

// More requests at one time than the deployment takes: 8 at the replica, 2 wait, the rest is refused. Long enough that
// all are there before the first is answered, short enough that the two have their turn soon on a slow machine.
const crowd = await Promise.all(
  Array.from({ length: 14 }, () =>
    fails(() => client.completions.create({ model: asked.busy, prompt: "a", max_tokens: 400, ignore_eos: true })),
  ),
);
found.refused = crowd.filter((one) => one !== null);
// The same crowd with retries: the client waits as long as Retry-After says, and everybody is answered.
const patient = new OpenAI({ baseURL: `${asked.url}/v1`, apiKey: asked.key, maxRetries: 10, timeout: 120_000 });
const answered = await Promise.all(
  Array.from({ length: 14 }, () => patient.completions.create({ model: asked.busy, prompt: "a", max_tokens: 20 })),
);
found.answered = answered.length;

console.log(JSON.stringify(found));
