"use strict";
// Data: steps of 8-bit scales, each as its change since the step before, deflated, in base64.
const LEVELS = 254;
const STEPS_A_SECOND = 12;
const SAID_AFTER_MS = 600;

const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const seen = { image: 0, phase: 0, step: 0 };
let playing = false;
let saying = 0;

async function unpacked(text, steps) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const values = new Uint8Array(await new Response(stream).arrayBuffer());
  const cells = values.length / data.labels.length / (steps + 1);
  for (let i = 0; i < values.length; i += 1)
    if (Math.floor(i / cells) % (steps + 1)) values[i] += values[i - cells];
  return (image, step) => values.subarray((image * (steps + 1) + step) * cells, (image * (steps + 1) + step + 1) * cells);
}

function colour(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

let palette;
function readPalette() {
  const [ground, up, down, gap] = ["surface", "series-1", "series-2", "paper"].map(colour);
  const mixed = (end, share) => ground.map((c, i) => Math.round(c + share * (end[i] - c)));
  const shades = (share) => Array.from({ length: LEVELS + 1 }, (_, q) => share(q / LEVELS));
  palette = {
    up, down, gap,
    plain: shades((s) => mixed(up, s)),
    signed: shades((s) => mixed(s < 0.5 ? down : up, Math.abs(2 * s - 1))),
    // Most differences are small beside the largest.
    spread: shades((s) => mixed(s < 0.5 ? down : up, Math.abs(2 * s - 1) ** 0.5)),
  };
}

const short = (value) => (value === null ? "–" : Math.abs(value) >= 1e6 ? value.toExponential(1) : Math.abs(value) >= 1000 || !value ? String(Math.round(value))
  : String(Number(value.toPrecision(Math.abs(value) < 0.1 ? 2 : 3))));
const fine = (value) => (Math.abs(value) < 1e6 ? String(Number(value.toPrecision(5))) : value.toExponential(4)).replaceAll("-", "−");
const minus = (value) => short(value).replaceAll("-", "−");

// --- populations --------------------------------------------------------------------------------

// Channels side by side, near a square, with a cell between them.
function layOut([channels, rows, columns]) {
  const across = Math.max(1, Math.round(Math.sqrt((channels * (rows + 1)) / (columns + 1))));
  const places = [];
  for (let c = 0; c < channels; c += 1)
    for (let y = 0; y < rows; y += 1)
      for (let x = 0; x < columns; x += 1)
        places.push([(c % across) * (columns + 1) + x, Math.floor(c / across) * (rows + 1) + y]);
  return { places, width: across * (columns + 1) - 1, height: Math.ceil(channels / across) * (rows + 1) - 1 };
}

function paint(canvas, { places, width, height }, values, shades) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  values.forEach((q, i) => {
    const [x, y] = places[i];
    image.data.set([...shades[q], 255], 4 * (y * width + x));
  });
  context.putImageData(image, 0, 0);
}

const layouts = data.populations.map((p) => layOut(p.shape));

function shadesOf(phase, i) {
  if (phase.signed) return palette.spread;
  return phase.states[i].scales[seen.image][0] < 0 ? palette.signed : palette.plain;
}

function drawScale(phase, i) {
  const scale = document.querySelector(`[data-scale="${i}"]`), shades = shadesOf(phase, i);
  const [low, high] = phase.states[i].scales[seen.image];
  const stops = Array.from({ length: 17 }, (_, k) => `rgb(${shades[Math.round((k * LEVELS) / 16)]})`);
  scale.children[1].style.background = `linear-gradient(90deg, ${stops})`;
  scale.firstElementChild.textContent = minus(low);
  scale.lastElementChild.textContent = minus(high);
}

function drawPopulations(phase) {
  data.populations.forEach((_, i) => {
    const now = phase.states[i].values(seen.image, seen.step);
    paint(document.querySelector(`canvas[data-population="${i}"]`), layouts[i], now, shadesOf(phase, i));
    const sent = phase.events.length ? phase.events[i][seen.image][seen.step] : null;
    document.querySelector(`[data-sent="${i}"]`).textContent = sent === null ? "" : `sent ${sent} at this step`;
  });
}

function describePopulations(phase) {
  data.populations.forEach(({ name }, i) => {
    const { scales, values } = phase.states[i], [low, high] = scales[seen.image];
    const now = [...values(seen.image, seen.step)].map((q) => low + (q * (high - low)) / LEVELS);
    const mean = now.reduce((sum, v) => sum + v, 0) / now.length;
    document.querySelector(`canvas[data-population="${i}"]`).setAttribute("aria-label",
      `${name} at step ${seen.step}: from ${minus(Math.min(...now))} to ${minus(Math.max(...now))}, mean ${minus(mean)}`);
  });
}

// --- output -------------------------------------------------------------------------------------

const largestOf = (values) => values.indexOf(Math.max(...values));

function drawOutput(phase) {
  const values = phase.outputs[seen.image][seen.step];
  const began = phase.outputs[seen.image][0];
  const [low, high] = phase.signed ? phase.outputEnds[seen.image] : ends(phase.outputEnds.flat());
  const place = (v) => Math.min(100, Math.max(0, (100 * (v - low)) / (high - low || 1)));
  const label = data.labels[seen.image];
  // Of many classes the largest, and the label.
  let shown = values.map((_, k) => k);
  if (shown.length > 20) {
    shown = shown.sort((a, b) => values[b] - values[a]);
    shown = [...new Set([...shown.slice(0, 11), label])];
  }
  at("bars").replaceChildren(...shown.map((k) => {
    const row = document.createElement("li"), name = document.createElement("span");
    const ground = document.createElement("i"), bar = document.createElement("b"), number = document.createElement("span");
    row.classList.toggle("largest", !phase.signed && k === largestOf(values));
    name.textContent = k === label ? `${k} (label)` : k;
    number.textContent = minus(values[k]);
    bar.className = values[k] < 0 ? "below" : "";
    bar.style.left = `${place(Math.min(0, values[k]))}%`;
    bar.style.width = `${Math.abs(place(values[k]) - place(0))}%`;
    ground.append(bar);
    if (seen.phase && !phase.signed) {
      const mark = document.createElement("u");
      mark.style.left = `${place(began[k])}%`;
      ground.append(mark);
    }
    row.append(name, ground, number);
    return row;
  }));
}

const ends = (values) => values.reduce(([a, b], v) => (v === null ? [a, b] : [Math.min(a, v), Math.max(b, v)]), [Infinity, -Infinity]);

function summary(phase) {
  const label = data.labels[seen.image], values = phase.outputs[seen.image][seen.step];
  const when = `Step ${seen.step} of ${phase.steps}: `;
  if (phase.signed) {
    const stood = data.phases[0].outputs[seen.image].at(-1)[label];
    return `${when}the pull moves output ${label} by ${minus(values[label])}. It stood at ${minus(stood)}, and its target is 1.`;
  }
  if (ends(values)[0] === ends(values)[1]) return `${when}everything is at rest, there is no answer yet.`;
  const answer = largestOf(values);
  const move = phase.curves[0].values[seen.image][seen.step];
  return `${when}the answer is ${answer}, ${answer === label ? "right" : `wrong (it is a ${label})`}.`
    + (move === null ? "" : ` The largest move of a state is ${minus(move)}.`);
}

// --- curves and raster --------------------------------------------------------------------------

function plot(title, drawing, caption) {
  const figure = document.createElement("figure"), head = document.createElement("h3");
  const box = document.createElement("div"), text = document.createElement("figcaption");
  head.textContent = title;
  text.textContent = caption;
  box.className = "plot";
  box.append(drawing, document.createElement("i"));
  figure.append(head, box, text);
  return figure;
}

function curve({ name, log, values }, steps) {
  const raw = values[seen.image], known = raw.filter((v) => v !== null && (!log || v > 0));
  const floor = Math.max(Math.min(...known), log ? Math.max(...known) * 1e-5 : -Infinity);
  const to = (v) => (log ? Math.log10(Math.max(v, floor)) : v);
  const low = to(floor), high = to(Math.max(...known));
  const points = raw.map((v, t) => (v === null ? null : `${(100 * t) / steps} ${95 - (90 * (to(v) - low)) / (high - low || 1)}`));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", `M${points.filter((p) => p !== null).join("L")}`);
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const first = raw.find((v) => v !== null), last = raw.at(-1), told = log ? minus : fine;
  const words = `from ${told(first)} to ${told(last)} in ${steps} steps${log ? ", logarithmic" : ""}`;
  svg.setAttribute("aria-label", `${name}: ${words}`);
  svg.append(line);
  const made = plot(name, svg, words);
  made.tell = () => { made.lastChild.textContent = `${raw[seen.step] === null ? "" : `now ${told(raw[seen.step])}, `}${words}`; };
  return made;
}

function raster(phase) {
  const canvas = document.createElement("canvas"), gap = 3;
  const height = phase.messages.reduce((sum, m) => sum + m.rows + gap, -gap);
  canvas.width = phase.steps;
  canvas.height = height;
  canvas.style.height = `${3 * height}px`;
  const context = canvas.getContext("2d"), image = context.createImageData(phase.steps, height);
  const put = (row, t, shade) => image.data.set([...shade, 255], 4 * (row * phase.steps + t - 1));
  for (let t = 1; t <= phase.steps; t += 1) {
    let row = 0;
    for (const { values, rows } of phase.messages) {
      for (let i = 1; row > 0 && i <= gap; i += 1) put(row - i, t, palette.gap);
      values(seen.image, t).forEach((sign, i) => { if (sign !== 1) put(row + i, t, sign ? palette.up : palette.down); });
      row += rows + gap;
    }
  }
  context.putImageData(image, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Messages of single neurons by step");
  const names = phase.messages.map(({ name, rows }) => `${name} (${rows} neurons)`).join(", ");
  return plot("Who sends when", canvas, `A stroke is a message; from top to bottom ${names}.`);
}

// --- all together -------------------------------------------------------------------------------

function drawPhase() {
  const phase = data.phases[seen.phase], following = data.phases[seen.phase + 1];
  const label = data.labels[seen.image];
  at("phase-title").textContent = phase.name;
  at("text").textContent = phase.text.replaceAll("{label}", label);
  at("step").max = phase.steps;
  at("next").hidden = !following;
  if (following) at("next").textContent = `Next: ${following.name}`;
  at("output-title").textContent = phase.signed ? "Output: difference" : "Output";
  at("began").textContent = phase.signed || !seen.phase ? "" : "The thin line is where the free phase ended.";
  data.populations.forEach((_, i) => drawScale(phase, i));
  const picture = document.querySelector(`[name="image"][value="${seen.image}"] + img`);
  at("input").src = picture.src;
  at("input").alt = `The image, labelled ${label}`;
  at("downhill").hidden = phase.signed;
  at("curves").replaceChildren(...phase.curves.map((one) => curve(one, phase.steps)));
  at("raster").replaceChildren(...(phase.messages.length ? [raster(phase)] : []));
  drawStep();
}

function drawStep() {
  const phase = data.phases[seen.phase];
  at("step").value = seen.step;
  at("count").textContent = `${seen.step} of ${phase.steps}`;
  at("step").setAttribute("aria-valuetext", `step ${seen.step} of ${phase.steps}`);
  drawPopulations(phase);
  drawOutput(phase);
  at("now").textContent = summary(phase);
  [...at("curves").children].forEach((one) => one.tell());
  document.querySelectorAll(".plot i").forEach((marker) => { marker.style.left = `${(100 * seen.step) / phase.steps}%`; });
  // A screen reader hears where one stops, not every step on the way.
  clearTimeout(saying);
  if (!playing) saying = setTimeout(() => { at("said").textContent = summary(phase); describePopulations(phase); }, SAID_AFTER_MS);
}

function play(on) {
  playing = on;
  at("play").textContent = on ? "Pause" : "Play";
  if (!on) return drawStep();
  const last = data.phases[seen.phase].steps;
  if (seen.step >= last) seen.step = 0;
  const from = seen.step, began = performance.now();
  // Without motion: eight pictures, a second each.
  const jump = calm.matches ? Math.ceil(last / 8) : 1;
  const pace = calm.matches ? 1 : STEPS_A_SECOND;
  const frame = (time) => {
    if (!playing) return;
    const step = Math.min(last, from + jump * Math.floor((Math.max(0, time - began) * pace) / 1000));
    if (step !== seen.step) { seen.step = step; drawStep(); }
    if (step >= last) play(false);
    else requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

function show(phase) {
  play(false);
  seen.phase = phase;
  document.querySelector(`[name="phase"][value="${phase}"]`).checked = true;
  seen.step = data.phases[phase].signed ? data.phases[phase].steps : 0;
  drawPhase();
}

async function begin() {
  await Promise.all(data.phases.flatMap((phase) => [...phase.states, ...phase.messages].map(async (one) => {
    one.values = await unpacked(one.data, phase.steps);
  })));
  // Of a difference of spikes, the first steps are counting noise.
  for (const phase of data.phases)
    phase.outputEnds = phase.outputs.map((steps) => ends([0, ...steps.slice(phase.signed ? (phase.steps + 1) >> 1 : 0).flat()]));
  readPalette();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readPalette(); drawPhase(); });
  at("play").addEventListener("click", () => play(!playing));
  at("step").addEventListener("input", () => { seen.step = Number(at("step").value); play(false); });
  at("next").addEventListener("click", () => { show(seen.phase + 1); play(true); });
  document.addEventListener("change", ({ target }) => {
    if (target.name === "image") { seen.image = Number(target.value); drawPhase(); }
    if (target.name === "phase") show(Number(target.value));
  });
  show(0);
  document.documentElement.dataset.ready = "yes";
}
begin();
