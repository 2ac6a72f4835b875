// What the pages share: elements, times, colours, and requests to the server.

export const $ = (id) => document.getElementById(id);

/** A new element. Texts become text nodes, so names from files are never read as HTML. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "width%") element.style.width = `${value}%`;
    else if (name === "colour") element.style.background = value;
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const rest = Math.floor((seconds - whole) * 10);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}.${rest}`;
}

/** Fill a list with names and scores as bars, as long as their share of the highest. */
export function barsOf(list, top) {
  const most = Math.max(1, ...top.map((t) => t.score));
  list.replaceChildren(...top.map(({ label, score }) => make(
    "li", {}, make("i", { "width%": Math.max(0, 100 * score / most) }),
    make("span", {}, label), make("b", {}, score.toFixed(3)),
  )));
  return list;
}

/** A colour for the number of a class; neighbours differ. */
export const colour = (number, alpha = 1) => `hsl(${(number * 137.5 + 200) % 360} 52% 50% / ${alpha})`;

export function say(sentence) {
  $("error").textContent = sentence;
  $("error").hidden = !sentence;
  if (sentence) $("error").scrollIntoView({ block: "nearest" });
}

export function address(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== "" && one !== null && one !== undefined) query.append(name, one);
    }
  }
  return query.size ? `${path}?${query}` : path;
}

export async function get(path, parameters) {
  let answer;
  try {
    answer = await fetch(address(path, parameters));
  } catch {
    throw new Error("the server does not answer");
  }
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

/** Send a file; `onSent` hears the share that was sent. */
export function send(path, parameters, file, onSent = () => {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(path, parameters));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => onSent(event.loaded / event.total);
    request.onerror = () => reject(new Error("the connection to the server was lost"));
    request.onload = () => {
      const content = request.response;
      if (request.status === 200) resolve(content);
      else reject(new Error(content?.error ?? `the server answers ${request.status}`));
    };
    request.send(file);
  });
}
