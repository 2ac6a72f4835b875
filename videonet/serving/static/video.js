// The page of one video: upload, player, timelines, labels and objects at the moment, explanation.

import { $, barsOf, clock, colour, get, make, say, send } from "./common.js";
import { setUpCamera } from "./camera.js";
import { setUpSearch } from "./moments.js";
import { FoundObjects } from "./objects.js";
import { Timeline, borders, windowAt } from "./timeline.js";

const SHOWN = 5;
let info = null;
let file = null;
let answer = null;
let panels = [];
let windowLength = "own";
let usedStride = "";
let least = 0;
let shownTime = 0;

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
  $("similar").hidden = !info.search;
  $("most").textContent = `, up to ${info.limits.max_mb} MB`;
  if (!info.models.length) say("This server has no model: start it with --checkpoint.");
}

const chosenModels = () => [...new Set([$("model").value, $("compare").value])].filter(Boolean);
const kindOf = (name) => info.models.find((m) => m.name === name)?.finds;

/** Lengths of a window; a model whose clips are spread over whole videos has none of its own. */
function offerWindows() {
  const labelling = chosenModels().filter((name) => kindOf(name) === "labels");
  for (const name of ["window-field", "stride-field"]) $(name).hidden = !labelling.length;
  $("least-field").hidden = !chosenModels().some((name) => kindOf(name) === "objects");
  const slides = labelling.every((name) => info.models.find((m) => m.name === name).slides);
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
  least = Number($("least").value);
  const token = crypto.randomUUID();
  show("busy");
  $("busy-name").textContent = file.name;
  const timer = setInterval(() => watch(token), 400);
  try {
    answer = await send(
      "/api/predict",
      {
        model: chosenModels(), name: file.name, progress: token, sliding: windowLength !== "",
        window: ownLength(), stride: windowLength ? usedStride : "", min_score: least,
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
    progress(`is looked at: ${now.done} of ${now.total}`, now.total ? now.done / now.total : null);
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
  $("explain").hidden = !answer.results.some((r) => kindOf(r.model) === "labels");
  moments.reset();
  if (facts.is_picture) {
    video.removeAttribute("src");
    video.load();
    $("heat").src = URL.createObjectURL(file);
    $("heat").hidden = false;
  } else {
    video.src = URL.createObjectURL(file);
  }
  const several = answer.results.length > 1;
  panels = answer.results.map((result) => {
    const kind = kindOf(result.model), title = several ? `${result.model}: ` : "";
    if (kind === "labels") return panel(result, several ? result.model : "labels over time");
    return new FoundObjects(result, facts, {
      maps: kind === "label_maps", title: `${title}${kind === "objects" ? "objects" : "classes"} over time`,
      least, drawn: result === answer.results.find((r) => r.objects.length), seek, redraw: drawObjects,
    });
  });
  $("timelines").replaceChildren(...panels.flatMap((p) => (p.timeline ? [p.timeline.element] : [])));
  $("panels").replaceChildren(...panels.map((p) => p.element));
  $("agreement").textContent = agreement();
  moveTo(0);
}

/** The share of time in which two models have the same best label. */
function agreement() {
  if (panels.length < 2 || !panels.every((p) => p.result.windows.length)) return "";
  const best = (p, time) => {
    const { scores } = p.result.windows[windowAt(p.edges, time)];
    return p.result.classes[scores.indexOf(Math.max(...scores))];
  };
  const times = Array.from({ length: 500 }, (_, k) => ((k + 0.5) / 500) * answer.facts.duration);
  const same = times.filter((time) => best(panels[0], time) === best(panels[1], time)).length;
  return `The two models have the same best label ${(same / 5).toFixed(0)} % of the time.`;
}

function panel(result, title) {
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
  const edges = result.windows.length ? borders(result.windows) : null;
  const timeline = edges && new Timeline(result, answer.facts.duration, title, seek);
  const moveTo = (time) => {
    timeline?.moveTo(time);
    if (!edges) return;
    const { scores } = result.windows[windowAt(edges, time)];
    const best = scores.map((score, k) => ({ label: result.classes[k], score }))
      .sort((a, b) => b.score - a.score).slice(0, SHOWN);
    at.textContent = `at ${clock(time)}`;
    barsOf(bars, best);
  };
  return { element, bars, result, edges, timeline, moveTo };
}

function moveTo(time) {
  shownTime = time;
  for (const one of panels) one.moveTo(time);
  moments.follow(time);
  drawObjects();
}

/** Boxes and masks over the frame that is shown, where a model gives them. */
function drawObjects() {
  const video = $("video"), canvas = $("marks"), { facts } = answer;
  const found = panels.filter((one) => one instanceof FoundObjects);
  canvas.width = canvas.clientWidth;
  canvas.height = canvas.clientHeight;
  canvas.classList.toggle("over", facts.is_picture);
  if (!found.length || !$("unplayable").hidden) return;
  const [w, h] = video.videoWidth ? [video.videoWidth, video.videoHeight] : [facts.width, facts.height];
  const scale = Math.min(canvas.width / w, canvas.height / h);
  const [width, height] = [w * scale, h * scale];
  const [left, top] = [(canvas.width - width) / 2, (canvas.height - height) / 2];
  for (const one of found) one.draw(canvas.getContext("2d"), left, top, width, height);
}

/** While the video plays, go on with each of its frames. */
function followFrames() {
  const video = $("video");
  video.requestVideoFrameCallback?.((_, { mediaTime }) => {
    if (answer && !video.paused && panels.some((one) => one instanceof FoundObjects)) moveTo(mediaTime);
    followFrames();
  });
}

const now = () => shownTime;

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
    for (const { model } of answer.results.filter((r) => kindOf(r.model) === "labels")) {
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

const moments = setUpSearch(() => ({ file, facts: answer.facts, time: shownTime }));
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
$("again").addEventListener("click", () => { $("video").pause(); say(""); show("start"); });
new ResizeObserver(() => answer && drawObjects()).observe($("player"));
$("video").addEventListener("loadeddata", () => answer && drawObjects());
followFrames();
setUpCamera(label, () => $("model").value);
start().catch((error) => say(error.message));
