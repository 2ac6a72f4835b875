// The page of one video: upload, player, timelines, labels at the moment, explanation.

import { $, clock, colour, get, make, say, send } from "./common.js";
import { setUpCamera } from "./camera.js";
import { Timeline, borders, windowAt } from "./timeline.js";

const SHOWN = 5;
let info = null;
let file = null;
let answer = null;
let timelines = [];
let panels = [];
let windowLength = "own";
let usedStride = "";

const ownLength = () => (windowLength === "own" ? "" : windowLength);

async function start() {
  info = await get("/api/info");
  for (const model of info.models) {
    $("model").append(make("option", { value: model.name }, model.name));
    $("compare").append(make("option", { value: model.name }, model.name));
  }
  for (const name of ["model", "compare"]) $(name).addEventListener("change", offerWindows);
  $("compare").prepend(make("option", { value: "", selected: "" }, "no other"));
  $("compare").value = "";
  offerWindows();
  $("compare-field").hidden = info.models.length < 2;
  $("data-link").hidden = !info.data;
  $("search").hidden = !info.search;
  $("most").textContent = `, up to ${info.limits.max_mb} MB`;
  if (!info.models.length) say("This server has no model: start it with --checkpoint.");
}

const chosenModels = () => [...new Set([$("model").value, $("compare").value])].filter(Boolean);

/** Lengths of a window; a model whose clips are spread over whole videos has none of its own. */
function offerWindows() {
  const slides = chosenModels().every((name) => info.models.find((m) => m.name === name).slides);
  const own = slides ? ["own", "as in training"] : ["", "whole video"];
  const lengths = [1, 2, 4, 8, 16].map((seconds) => [seconds, `${seconds} s`]);
  $("window").replaceChildren(...[own, ...lengths].map(([value, text]) => make("option", { value }, text)));
  $("window").value = slides ? "own" : "2";
}

function show(section) {
  for (const id of ["start", "camera", "busy", "work"]) $(id).hidden = id !== section;
}

async function label(chosen) {
  say("");
  if (chosen.size > info.limits.max_mb * 1e6) {
    show("start");
    say(`${chosen.name} is larger than ${info.limits.max_mb} MB, the limit of this server`);
    return;
  }
  file = chosen;
  windowLength = $("window").value;
  usedStride = $("stride").value;
  const token = crypto.randomUUID();
  show("busy");
  $("busy-name").textContent = file.name;
  const timer = setInterval(() => watch(token), 400);
  try {
    answer = await send(
      "/api/predict",
      {
        model: chosenModels(), name: file.name, progress: token, sliding: windowLength !== "",
        window: ownLength(), stride: windowLength ? usedStride : "",
      },
      file,
      (share) => progress("is sent", share),
    );
    present();
  } catch (error) {
    show("start");
    say(error.message);
  } finally {
    clearInterval(timer);
    $("file").value = "";
  }
}

function progress(text, share) {
  $("busy-text").textContent = text;
  if (share === null) $("busy-bar").removeAttribute("value");
  else $("busy-bar").value = share;
}

async function watch(token) {
  const now = await get(`/api/progress/${token}`).catch(() => null);
  if (now?.state === "waiting" && now.ahead) progress(`waits for ${now.ahead} other requests`, null);
  if (now?.state === "reading") progress("is read", null);
  if (now?.state === "scoring") {
    progress(`is labelled: ${now.done} of ${now.total} windows`, now.total ? now.done / now.total : null);
  }
}

function present() {
  show("work");
  const facts = answer.facts;
  $("facts").textContent = [
    answer.video, `${facts.width} × ${facts.height}`,
    facts.is_picture ? "picture" : `${clock(facts.duration)}, ${facts.fps.toFixed(1)} frames a second`, facts.codec,
  ].join(" · ");
  $("strip").src = answer.strip;
  const video = $("video");
  if (video.src) URL.revokeObjectURL(video.src);
  $("unplayable").hidden = true;
  $("heat").hidden = true;
  $("explanation").hidden = true;
  $("moments").hidden = true;
  if (facts.is_picture) {
    video.removeAttribute("src");
    video.load();
    $("heat").src = URL.createObjectURL(file);
    $("heat").hidden = false;
  } else {
    video.src = URL.createObjectURL(file);
  }
  const several = answer.results.length > 1;
  timelines = answer.results.filter((r) => r.windows.length).map(
    (r) => new Timeline(r, facts.duration, several ? r.model : "labels over time", seek),
  );
  $("timelines").replaceChildren(...timelines.map((t) => t.element));
  panels = answer.results.map((result) => panel(result));
  $("panels").replaceChildren(...panels.map((p) => p.element));
  $("agreement").textContent = agreement();
  moveTo(0);
}

/** The share of time in which two models have the same best label. */
function agreement() {
  if (panels.length < 2 || !panels.every((p) => p.edges)) return "";
  const best = (p, time) => {
    const { scores } = p.result.windows[windowAt(p.edges, time)];
    return p.result.classes[scores.indexOf(Math.max(...scores))];
  };
  const times = Array.from({ length: 500 }, (_, k) => ((k + 0.5) / 500) * answer.facts.duration);
  const same = times.filter((time) => best(panels[0], time) === best(panels[1], time)).length;
  return `The two models have the same best label ${(same / 5).toFixed(0)} % of the time.`;
}

function panel(result) {
  const bars = make("ul", { class: "bars" });
  const at = make("h3", {});
  const element = make("section", { class: "panel" }, make("h2", {}, result.model));
  if (result.windows.length) element.append(at, bars);
  element.append(make("h3", {}, "whole video"), barsOf(make("ul", { class: "bars" }), result.top));
  if (result.segments.length) {
    const items = result.segments.map((s) => make("li", {}, make(
      "button", { type: "button", onclick: () => seek(s.start) },
      make("i", { colour: colour(result.classes.indexOf(s.label)) }),
      make("span", {}, s.label), make("b", {}, `${clock(s.start)} – ${clock(s.end)}`),
    )));
    element.append(make("h3", {}, "segments"), make("ul", { class: "segments" }, ...items));
  }
  element.append(make(
    "p", { class: "downloads" },
    make("a", { href: result.csv, download: "" }, "Table (CSV)"),
    make("a", { href: result.jsonl, download: "" }, "JSON lines"),
  ));
  return { element, bars, at, result, edges: result.windows.length ? borders(result.windows) : null };
}

function barsOf(list, top) {
  const most = Math.max(1, ...top.map((t) => t.score));
  list.replaceChildren(...top.map(({ label: name, score }) => make(
    "li", {}, make("i", { "width%": Math.max(0, 100 * score / most) }),
    make("span", {}, name), make("b", {}, score.toFixed(3)),
  )));
  return list;
}

function moveTo(time) {
  for (const timeline of timelines) timeline.moveTo(time);
  for (const { bars, at, result, edges } of panels) {
    if (!edges) continue;
    const { scores } = result.windows[windowAt(edges, time)];
    const best = scores.map((score, k) => ({ label: result.classes[k], score }))
      .sort((a, b) => b.score - a.score).slice(0, SHOWN);
    at.textContent = `at ${clock(time)}`;
    barsOf(bars, best);
  }
  drawObjects(time);
}

/** Boxes and outlines of the frame nearest to a time, where a model gives them. */
function drawObjects(time) {
  const video = $("video"), canvas = $("marks");
  canvas.width = canvas.clientWidth;
  canvas.height = canvas.clientHeight;
  const all = answer.results.flatMap((r) => r.objects);
  if (!all.length || !video.videoWidth) return;
  const nearest = all.reduce((a, b) => (Math.abs(b.time - time) < Math.abs(a.time - time) ? b : a)).time;
  const scale = Math.min(canvas.width / video.videoWidth, canvas.height / video.videoHeight);
  const [width, height] = [video.videoWidth * scale, video.videoHeight * scale];
  const [left, top] = [(canvas.width - width) / 2, (canvas.height - height) / 2];
  const pen = canvas.getContext("2d");
  pen.font = "13px system-ui, sans-serif";
  pen.lineWidth = 2;
  all.filter((o) => o.time === nearest).forEach((object, k) => {
    const [x0, y0, x1, y1] = object.box.map((v, i) => (i % 2 ? top + v * height : left + v * width));
    pen.strokeStyle = colour(k);
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    pen.fillStyle = colour(k, 0.35);
    pen.beginPath();
    for (const [x, y] of object.outline) pen.lineTo(left + x * width, top + y * height);
    pen.fill();
    pen.fillStyle = "#fff";
    pen.fillText(`${object.label} ${object.score.toFixed(2)}`, x0 + 4, y0 + 14);
  });
}

function now() {
  return timelines[0]?.time ?? $("video").currentTime ?? 0;
}

function seek(time) {
  if (!answer.facts.is_picture) $("heat").hidden = true;
  if ($("unplayable").hidden && !answer.facts.is_picture) $("video").currentTime = time;
  moveTo(time);
}

async function explain() {
  say("");
  $("explain").disabled = true;
  try {
    const parameters = { time: now(), window: ownLength(), stride: windowLength ? usedStride : "", name: file.name };
    const found = [];
    for (const { model } of answer.results) {
      found.push(await send("/api/explain", { ...parameters, model }, file));
    }
    $("video").pause();
    $("explained").replaceChildren(...found.flatMap(explainedModel));
    $("explanation").hidden = false;
    const { frames, label: name } = found[0];
    const middle = frames[Math.floor(frames.length / 2)];
    showHeat(middle.heat, `where the model looks for ${name} at ${clock(middle.time)}`);
  } catch (error) {
    say(error.message);
  } finally {
    $("explain").disabled = false;
  }
}

function explainedModel(found) {
  const model = answer.results.length > 1 ? `${found.model}: ` : "";
  const text = `${model}why ${found.label} (${found.score.toFixed(2)}) from ${clock(found.start)} to ${clock(found.end)}`;
  const frames = found.frames.map((frame) => make(
    "button", { type: "button", onclick: () => showHeat(frame.heat, `${found.label} at ${clock(frame.time)}`) },
    make("img", { src: frame.heat, alt: "" }), make("span", {}, clock(frame.time)),
  ));
  return [make("h2", {}, text), make("div", { class: "thumbs" }, ...frames)];
}

function showHeat(source, text) {
  $("heat").src = source;
  $("heat").alt = text;
  $("heat").title = "click to see the video again";
  $("heat").hidden = false;
}

async function search() {
  say("");
  try {
    const time = now();
    const moments = await send("/api/search", { start: Math.max(0, time - 1), end: time + 1, name: file.name }, file);
    $("moment-list").replaceChildren(...moments.map((m) => make(
      "li", {}, `${m.video}  ${clock(m.start)} – ${clock(m.end)}  (${m.similarity.toFixed(3)})`,
    )));
    $("moments").hidden = false;
  } catch (error) {
    say(error.message);
  }
}

const drop = $("drop");
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
drop.addEventListener("dragover", () => drop.classList.add("over"));
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) label(event.dataTransfer.files[0]);
});
$("file").addEventListener("change", () => $("file").files.length && label($("file").files[0]));
$("video").addEventListener("timeupdate", () => answer && !$("video").seeking && moveTo($("video").currentTime));
$("video").addEventListener("play", () => { $("heat").hidden = true; });
$("video").addEventListener("error", () => { $("unplayable").hidden = !$("video").getAttribute("src"); });
$("heat").addEventListener("click", () => { $("heat").hidden = !answer.facts.is_picture; });
$("explain").addEventListener("click", explain);
$("search").addEventListener("click", search);
$("again").addEventListener("click", () => { $("video").pause(); say(""); show("start"); });
setUpCamera(label, () => $("model").value);
start().catch((error) => say(error.message));
