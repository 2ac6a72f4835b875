// The calls of the API, from its OpenAPI description.

import { $, get, make, say } from "./common.js";

function typeOf(schema) {
  if (schema.anyOf) return schema.anyOf.map(typeOf).filter((name) => name !== "null").join(" or ");
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  return schema.type === "array" ? `list of ${typeOf(schema.items)}` : schema.type;
}

function table(head, rows) {
  return make(
    "table", {}, make("tr", {}, ...head.map((text) => make("th", {}, text))),
    ...rows.map((row) => make("tr", {}, ...row.map((text) => make("td", {}, text)))),
  );
}

function call(path, verb, operation) {
  const rows = (operation.parameters ?? []).map(({ name, schema, description }) => [
    make("code", {}, name), typeOf(schema),
    schema.default === undefined || schema.default === "" ? "" : String(schema.default), description ?? "",
  ]);
  const answer = operation.responses[200]?.content?.["application/json"]?.schema;
  const errors = Object.entries(operation.responses).filter(([status]) => status >= 400)
    .map(([status, { description }]) => `${status} ${description}`).join(" · ");
  const parts = [
    make("h2", {}, make("code", { class: "verb" }, verb.toUpperCase()), " ", make("code", {}, path)),
    make("p", {}, operation.summary, operation.description ? `. ${operation.description}` : ""),
  ];
  if (operation.requestBody) parts.push(make("p", { class: "quiet" }, `Body: ${operation.requestBody.description}.`));
  if (rows.length) parts.push(table(["parameter", "type", "default", ""], rows));
  if (answer) parts.push(make("p", { class: "quiet" }, `Answers ${typeOf(answer)}.`));
  if (errors) parts.push(make("p", { class: "quiet" }, errors));
  return make("section", { class: "call" }, ...parts);
}

async function start() {
  const [info, api] = await Promise.all([get("/api/info"), get("/openapi.json")]);
  $("data-link").hidden = !info.data;
  $("example").textContent = `curl -X POST -T clip.mp4 '${location.origin}/api/predict?name=clip.mp4&sliding=true'`;
  for (const [name, value] of Object.entries(info.limits)) {
    $("limits").append(make("tr", {}, make("td", {}, make("code", {}, name)), make("td", {}, value.toLocaleString("en"))));
  }
  for (const [path, verbs] of Object.entries(api.paths)) {
    for (const [verb, operation] of Object.entries(verbs)) $("calls").append(call(path, verb, operation));
  }
}

start().catch((error) => say(error.message));
