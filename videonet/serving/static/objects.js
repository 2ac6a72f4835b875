// Boxes, masks and label maps of the frames of a video: drawn over it, and listed beside it.

import { barsOf, clock, colour, make } from "./common.js";
import { Timeline, windowAt } from "./timeline.js";

const ROWS = 8, SHOWN = 8, LISTED = 40, NAMED = 20; // of a timeline; at a moment; below; on a frame
const MOST_PIXELS = 1280; // of the longer side of what is drawn of masks
const OPACITY = 0.45;

/** Run lengths as COCO packs them into a text: six bits a letter, each run from the third on as
 *  the difference to the run before the last. */
export function runsOf(text) {
  const runs = [];
  let value = 0, shift = 0;
  for (const letter of text) {
    const bits = letter.charCodeAt(0) - 48;
    value |= (bits & 31) << shift;
    shift += 5;
    if (bits & 32) continue;
    if (bits & 16 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
    value = shift = 0;
  }
  return runs;
}

/** Colour the pixels of a mask: its runs go down the columns, first those outside. */
function paint(pixels, size, step, text, value) {
  const across = Math.ceil(size.width / step);
  let place = 0, inside = false;
  for (const run of runsOf(text)) {
    for (let k = place; inside && k < place + run; k++) {
      const x = Math.floor(k / size.height), y = k % size.height;
      if (x % step === 0 && y % step === 0) pixels[(y / step) * across + x / step] = value;
    }
    place += run;
    inside = !inside;
  }
}

const values = new Map();

/** A translucent colour as one number, as it stands in the pixels of a canvas. */
function valueOf(number) {
  if (!values.has(number)) {
    const pen = new OffscreenCanvas(1, 1).getContext("2d");
    pen.fillStyle = colour(number);
    pen.fillRect(0, 0, 1, 1);
    const { data } = pen.getImageData(0, 0, 1, 1);
    data[3] = 255 * OPACITY;
    values.set(number, new Uint32Array(data.buffer)[0]);
  }
  return values.get(number);
}

export class FoundObjects {
  /** What a model found in the frames of a video: the timeline and the panel of it.
   *  Of a frame are shown the objects with at least the score `least` in it; `redraw` is called
   *  when it is to be drawn or not. */
  constructor(result, facts, { maps, title, least, drawn, seek, redraw }) {
    this.result = result;
    this.facts = facts;
    this.maps = maps;
    this.least = maps ? 0 : least;
    this.time = 0;
    this.names = result.objects.map((o) => (maps ? o.label : `${o.label} ${o.number + 1}`));
    // Class 0 of label maps is the background, which stays as it is.
    this.seen = new Set(result.objects.flatMap((o, k) => (maps && o.number === 0 ? [] : [k])));
    const { times } = result;
    const windows = times.map((start, k) => ({
      start, end: times[k + 1] ?? Math.max(facts.duration, start + 1e-3), scores: result.objects.map((o) => o.scores[k]),
    }));
    this.edges = [...times, Math.max(facts.duration, times.at(-1) + 1e-3)];
    if (times.length > 1 && result.objects.length) {
      this.timeline = new Timeline({ ...result, classes: this.names, windows }, facts.duration, title, seek, ROWS);
    }
    this.fillPanel(drawn, seek, redraw);
  }

  fillPanel(drawn, seek, redraw) {
    const { result, maps } = this;
    this.at = make("h3", {});
    this.bars = make("ul", { class: "bars" });
    this.switch = make("input", { type: "checkbox", onchange: redraw });
    this.switch.checked = drawn;
    const list = result.objects.slice(0, LISTED).map((object, k) => {
      const seen = object.boxes.flatMap((box, t) => (box ? [t] : []));
      const [first, last] = [result.times[seen[0]], result.times[seen.at(-1)]];
      // A little after the beginning of a frame, so that the browser shows it and not the one before.
      const start = () => seek(first + (this.facts.is_picture ? 0 : 0.4 / this.facts.fps));
      return make("li", {}, make(
        "button", { type: "button", onclick: start }, make("i", { colour: colour(k) }),
        make("span", {}, this.names[k]),
        make("b", {}, this.facts.is_picture ? object.score.toFixed(2) : `${clock(first)} – ${clock(last)}`),
      ));
    });
    const more = result.objects.length - list.length;
    const kind = maps ? "classes, by their share of the pixels" : "objects";
    this.element = make(
      "section", { class: "panel" }, make("h2", {}, result.model),
      make("label", { class: "quiet" }, this.switch, maps ? " draw label maps" : " draw boxes and masks"),
      this.at, this.bars,
      make("h3", {}, result.objects.length ? kind : "nothing was found: try a smaller least score"),
      make("ul", { class: "segments" }, ...list),
      make("p", { class: "quiet" }, more > 0 ? `and ${more} more in the file` : ""),
      make("p", { class: "downloads" }, make("a", { href: result.coco, download: "" }, "Masks (COCO JSON)")),
    );
  }

  /** The number of the frame that is shown at a time. */
  get frame() {
    return this.result.times.length > 1 ? windowAt(this.edges, this.time) : 0;
  }

  /** The numbers of the objects in it. */
  get here() {
    const { frame, result, least } = this;
    return result.objects.flatMap((o, k) => (o.boxes[frame] && o.scores[frame] >= least ? [k] : []));
  }

  moveTo(time) {
    this.time = time;
    this.timeline?.moveTo(time);
    const { frame } = this;
    const there = this.here
      .map((k) => ({ label: this.names[k], score: this.result.objects[k].scores[frame] }))
      .sort((a, b) => b.score - a.score);
    const count = this.maps ? "" : `: ${there.length} object${there.length === 1 ? "" : "s"}`;
    this.at.textContent = `${this.facts.is_picture ? "in the picture" : `at ${clock(time)}`}${count}`;
    barsOf(this.bars, there.slice(0, SHOWN));
  }

  /** Draw what is in the frame into a rectangle of a canvas. */
  draw(pen, left, top, width, height) {
    const { objects } = this.result, { frame, facts } = this;
    const here = this.switch.checked ? this.here.filter((k) => this.seen.has(k)) : [];
    this.drawMasks(pen, here.filter((k) => objects[k].masks[frame]), [left, top, width, height]);
    if (this.maps) return;
    const [across, down] = [width / facts.width, height / facts.height];
    pen.lineWidth = 2;
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    for (const k of here.reverse()) { // the best on top
      const [x, y, w, h] = objects[k].boxes[frame];
      const [x0, y0] = [left + x * across, top + y * down];
      pen.strokeStyle = pen.fillStyle = colour(k);
      pen.strokeRect(x0, y0, w * across, h * down);
      if (here.length > NAMED) continue;
      const text = `${this.names[k]}  ${objects[k].scores[frame].toFixed(2)}`;
      const above = y0 - 18 >= 0 ? y0 - 18 : y0;
      pen.fillRect(x0 - 1, above, pen.measureText(text).width + 10, 18);
      pen.fillStyle = "#fff";
      pen.fillText(text, x0 + 4, above + 10);
    }
  }

  drawMasks(pen, here, [left, top, width, height]) {
    if (!here.length) return;
    const { objects } = this.result, { frame, facts } = this;
    const step = Math.ceil(Math.max(facts.width, facts.height) / MOST_PIXELS);
    const layer = new OffscreenCanvas(Math.ceil(facts.width / step), Math.ceil(facts.height / step));
    const layerPen = layer.getContext("2d");
    const image = layerPen.createImageData(layer.width, layer.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (const k of [...here].reverse()) paint(pixels, facts, step, objects[k].masks[frame], valueOf(k));
    layerPen.putImageData(image, 0, 0);
    pen.drawImage(layer, left, top, width, height);
  }
}
