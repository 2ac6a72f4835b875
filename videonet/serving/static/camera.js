// The camera: a recording that is labelled as a file, or labels of short pieces as they come.

import { $, clock, make, say, send } from "./common.js";

const LONGEST = 10_000, PIECE = 2_000; // milliseconds

let stream = null;
let live = false;

export function setUpCamera(onRecording, model) {
  const show = async () => {
    say("");
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } } });
    } catch (error) {
      say(`The camera cannot be used: ${error.message}.`);
      return;
    }
    $("start").hidden = true;
    $("camera").hidden = false;
    $("live-log").replaceChildren();
    $("preview").srcObject = stream;
    await $("preview").play();
  };
  const close = () => {
    live = false;
    press($("live"), false);
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    $("preview").srcObject = null;
    $("live-label").textContent = "";
    $("camera").hidden = true;
    $("start").hidden = false;
  };
  $("camera-open").addEventListener("click", show);
  $("camera-close").addEventListener("click", close);
  $("record").addEventListener("click", async () => {
    if ($("record").stop) return $("record").stop();
    const recording = record(LONGEST);
    $("record").stop = recording.stop;
    $("record").textContent = "Stop";
    const file = await recording.file;
    $("record").stop = null;
    $("record").textContent = "Record";
    close();
    onRecording(file);
  });
  $("live").addEventListener("click", () => {
    live = !live;
    press($("live"), live);
    if (live) labelPieces(model);
  });
}

function press(button, on) {
  button.setAttribute("aria-pressed", on);
}

function record(milliseconds) {
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.ondataavailable = (event) => pieces.push(event.data);
  const file = new Promise((resolve) => {
    recorder.onstop = () => resolve(new File(pieces, "camera.webm", { type: recorder.mimeType }));
  });
  recorder.start();
  const stop = () => recorder.state !== "inactive" && recorder.stop();
  setTimeout(stop, milliseconds);
  return { file, stop };
}

async function labelPieces(model) {
  const begun = performance.now();
  while (live) {
    const time = (performance.now() - begun) / 1000;
    const file = await record(PIECE).file;
    if (!live) return;
    try {
      const answer = await send("/api/predict", { model: model(), top_k: 1, name: "camera.webm" }, file);
      const { label, score } = answer.results[0].top[0] ?? { label: "nothing found", score: 0 };
      if (!live) return;
      $("live-label").textContent = `${label} ${score.toFixed(2)}`;
      $("live-log").prepend(make("li", {}, `${clock(time)}  ${label} ${score.toFixed(2)}`));
    } catch (error) {
      say(error.message);
      live = false;
      press($("live"), false);
    }
  }
}
