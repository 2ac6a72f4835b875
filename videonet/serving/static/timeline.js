// Scores of the strongest classes over time, under the segments; a click seeks.

import { clock, colour, make } from "./common.js";

const ROW = 24, SEGMENTS = 26, AXIS = 20, MOST = 5;

/** The borders of the stretches that windows stand for: half-way between their middles. */
export function borders(windows) {
  const middles = windows.map((w) => (w.start + w.end) / 2);
  const between = middles.slice(1).map((m, k) => (m + middles[k]) / 2);
  return [windows[0].start, ...between, windows.at(-1).end];
}

const ROUNDED = 1e-3; // by which times may differ: those of windows and of segments are rounded

/** The number of the window that stands for a time. */
export function windowAt(edges, time) {
  let low = 0, high = edges.length - 2;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (edges[middle] <= time + ROUNDED) low = middle;
    else high = middle - 1;
  }
  return low;
}

export class Timeline {
  constructor(result, duration, title, onSeek, most = MOST) {
    this.result = result;
    this.duration = duration;
    this.edges = borders(result.windows);
    const highest = result.classes.map(
      (_, k) => result.windows.reduce((best, w) => Math.max(best, w.scores[k]), -Infinity),
    );
    this.rows = highest.map((_, k) => k).sort((a, b) => highest[b] - highest[a]).slice(0, most);
    const each = (best, start) => result.windows.reduce(
      (value, w) => this.rows.reduce((all, k) => best(all, w.scores[k]), value), start,
    );
    this.low = each(Math.min, 0);
    this.high = each(Math.max, 1e-9);
    this.time = 0;
    this.top = result.segments.length ? SEGMENTS : 4;
    this.canvas = make("canvas", {
      role: "slider", tabindex: "0", "aria-label": `time in ${title}`,
      "aria-valuemin": 0, "aria-valuemax": duration, "aria-valuenow": 0,
    });
    this.element = make("div", { class: "timeline" }, make("h3", {}, title), this.canvas);
    this.canvas.addEventListener("click", (event) => onSeek(this.timeOf(event)));
    this.canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      onSeek(Math.min(duration, Math.max(0, this.time + step * duration / 50)));
    });
    this.canvas.addEventListener("mousemove", (event) => {
      this.canvas.title = clock(this.timeOf(event));
    });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  timeOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * this.duration;
  }

  moveTo(time) {
    this.time = time;
    this.canvas.setAttribute("aria-valuenow", time.toFixed(1));
    this.canvas.setAttribute("aria-valuetext", clock(time));
    this.draw();
  }

  draw() {
    const scale = devicePixelRatio, width = this.canvas.clientWidth;
    const height = this.top + ROW * this.rows.length + AXIS;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = width * scale;
    this.canvas.height = height * scale;
    const pen = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    pen.scale(scale, scale);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const x = (time) => (time / this.duration) * width;
    for (const segment of this.result.segments) this.drawSegment(pen, segment, x);
    this.rows.forEach((number, row) => this.drawRow(pen, number, this.top + ROW * row, x, style.color));
    this.drawAxis(pen, width, height, x);
    pen.fillStyle = style.color;
    pen.fillRect(Math.min(width - 2, x(this.time)), 0, 2, height - AXIS);
  }

  drawSegment(pen, segment, x) {
    const left = x(segment.start), width = Math.max(1, x(segment.end) - left - 1);
    pen.fillStyle = colour(this.result.classes.indexOf(segment.label));
    pen.beginPath();
    pen.roundRect(left, 3, width, SEGMENTS - 8, 5);
    pen.fill();
    if (pen.measureText(segment.label).width < width - 12) {
      pen.fillStyle = "#fff";
      pen.fillText(segment.label, left + 6, SEGMENTS / 2 - 1);
    }
  }

  drawRow(pen, number, top, x, ink) {
    this.result.windows.forEach((window, k) => {
      const share = (window.scores[number] - this.low) / (this.high - this.low);
      pen.fillStyle = colour(number, 0.06 + 0.74 * share);
      const left = x(this.edges[k]);
      pen.fillRect(left, top + 1, x(this.edges[k + 1]) - left + 0.4, ROW - 2);
    });
    pen.fillStyle = ink;
    pen.fillText(this.result.classes[number], 6, top + ROW / 2 + 1);
  }

  drawAxis(pen, width, height, x) {
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800];
    const step = steps.find((s) => x(s) >= 70) ?? 3600;
    pen.fillStyle = "#8899a4";
    for (let time = 0; x(time) < width - 30; time += step) {
      pen.fillRect(x(time), height - AXIS, 1, 5);
      pen.fillText(clock(time), x(time) + 4, height - AXIS / 2 + 1);
    }
  }
}
