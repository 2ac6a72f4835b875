// Moments of an index that resemble a stretch of the open video.

import { $, clock, make, say, send } from "./common.js";

const AROUND = 1; // seconds before and after the moment that is shown, where no stretch is chosen

/** Ask for a stretch and show what is found; `open` gives the file, its facts and the time shown. */
export function setUpSearch(open) {
  const chosen = { from: false, to: false }; // by hand; else the stretch goes with the video
  const fields = { from: $("from"), to: $("to") };

  function follow(time) {
    const { facts } = open();
    const around = { from: Math.max(0, time - AROUND), to: Math.min(facts.duration, time + AROUND) };
    for (const [name, field] of Object.entries(fields)) {
      if (!chosen[name]) field.value = around[name].toFixed(1);
    }
  }

  function reset() {
    chosen.from = chosen.to = false;
    $("moments").replaceChildren();
    $("range").hidden = open().facts.is_picture;
  }

  async function search() {
    say("");
    const { file, facts } = open();
    const stretch = facts.is_picture ? {} : { start: fields.from.value, end: fields.to.value };
    $("search").disabled = true;
    try {
      const moments = await send("/api/search", { ...stretch, name: file.name }, file);
      $("moments").replaceChildren(...moments.map(card));
    } catch (error) {
      say(error.message);
    } finally {
      $("search").disabled = false;
    }
  }

  for (const [name, field] of Object.entries(fields)) {
    field.addEventListener("input", () => { chosen[name] = field.value !== ""; });
    $(`${name}-here`).addEventListener("click", () => {
      chosen[name] = true;
      field.value = open().time.toFixed(1);
    });
  }
  $("search").addEventListener("click", search);
  return { follow, reset };
}

function card(moment) {
  const times = `${clock(moment.start)} – ${clock(moment.end)}`;
  const play = () => frames.replaceWith(make("video", {
    src: `/api/moments/${moment.number}/video#t=${moment.start},${moment.end}`,
    controls: "", autoplay: "", muted: "", playsinline: "",
  }));
  const frames = moment.picture
    ? make("button", { type: "button", class: "frames", onclick: play, "aria-label": `play ${moment.video} ${times}` },
      make("img", { src: moment.picture, alt: "" }))
    : make("p", { class: "gone" }, moment.error);
  return make("article", { class: "clip" }, frames, make(
    "div", {}, make("p", {}, make("span", { class: "tag" }, moment.similarity.toFixed(3)), times),
    make("p", { class: "quiet" }, moment.video),
  ));
}
