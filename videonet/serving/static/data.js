// Clips of a list with their labels and what a model says of them.

import { $, get, make, say } from "./common.js";

const PAGE = 24;
const NOTES = {
  list: "in the order of the list",
  loss: "the least likely labels first",
  suspect: "the model is sure of another label, the surest first",
  duplicates: "files with the same content, side by side",
};
let order = "list";
let shown = 0;
let asked = 0;

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((e) => e.isIntersecting)) {
    watcher.unobserve(entry.target);
    loadStrip(entry.target);
  }
}, { rootMargin: "300px" });

async function loadStrip(button) {
  try {
    const { strip } = await get(`/api/clips/${button.dataset.index}/strip`);
    button.replaceChildren(make("img", { src: strip, alt: `frames of ${button.dataset.name}` }));
  } catch (error) {
    button.textContent = error.message;
  }
}

function card(clip) {
  const differs = clip.prediction && !clip.labels.includes(clip.prediction);
  const frames = make("button", {
    type: "button", class: "frames", "data-index": clip.index, "data-name": clip.name, "aria-label": `play ${clip.name}`,
    onclick: () => frames.replaceWith(make("video", {
      src: `/api/clips/${clip.index}/video`, controls: "", autoplay: "", loop: "", muted: "", playsinline: "",
    })),
  }, "…");
  const says = clip.prediction
    ? make("p", { class: "says" }, "predicted ", make("span", differs ? { class: "differs" } : {}, clip.prediction),
      ` ${clip.score.toFixed(3)} · loss ${clip.loss.toFixed(3)}`)
    : make("p", { class: "says" }, "not scored");
  const tags = clip.labels.map((name) => make("span", { class: "tag" }, name));
  if (clip.group !== null && order === "duplicates") tags.push(make("span", { class: "tag" }, `content ${clip.group + 1}`));
  watcher.observe(frames);
  return make("article", { class: "clip" }, frames, make("div", {}, make("p", {}, ...tags), says, make("p", { class: "quiet" }, clip.name)));
}

async function load(more = false) {
  const mine = ++asked;
  say("");
  if (!more) shown = 0;
  try {
    const page = await get("/api/clips", {
      order, label: $("label").value, text: $("text").value, first: shown, count: PAGE,
    });
    if (mine !== asked) return;
    if ($("label").options.length === 1) {
      $("label").append(...page.classes.map((name) => make("option", { value: name }, name)));
    }
    const cards = page.clips.map(card);
    if (more) $("clips").append(...cards);
    else $("clips").replaceChildren(...cards);
    shown += cards.length;
    $("count").textContent = `${page.total} of ${page.listed} clips, ${NOTES[order]}; ${page.scored} are scored`;
    $("more").hidden = shown >= page.total;
  } catch (error) {
    say(error.message);
  }
}

for (const button of $("orders").children) {
  button.addEventListener("click", () => {
    order = button.dataset.order;
    for (const other of $("orders").children) other.setAttribute("aria-pressed", other === button);
    load();
  });
}
$("label").addEventListener("change", () => load());
$("text").addEventListener("input", () => load());
$("more").addEventListener("click", () => load(true));
get("/api/info").then((info) => {
  if (!info.data) return say("This server browses no data: start it with videonet data browse.");
  $("title").textContent = info.data;
  return load();
}).catch((error) => say(error.message));
