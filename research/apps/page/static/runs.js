// Curves of training runs while they grow, one beside the other.

import { el, json, tried } from "/page/common.js";

const COLOURS = ["#2563c9", "#d1495b", "#2a9d6f", "#c98a1b", "#7b4fc9", "#2aa3b8", "#8a6a4f", "#c44fa0"];
const EVERY = 2000; // milliseconds
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [760, 320, 64, 30, 12];
const SVG = "http://www.w3.org/2000/svg";

export function runs(panel) {
  const list = el("div", { className: "row", id: "run-names" });
  const metric = el("select", { "aria-label": "Figure", id: "metric", onchange: () => draw() });
  const smooth = el("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: 0, "aria-label": "Smoothing", oninput: () => draw() });
  const log = el("input", { type: "checkbox", onchange: () => draw() });
  const chart = el("div", { id: "chart" });
  const known = new Map(); // run -> {rows, next, on}

  const names = tried(async () => {
    for (const name of await json("/page/runs")) {
      if (known.has(name)) continue;
      const box = el("input", { type: "checkbox", checked: known.size === 0 });
      known.set(name, { rows: [], next: 0, box });
      box.onchange = () => grow();
      list.append(el("label", {}, box, ` ${name}`));
    }
    await grow();
  });

  // One after the other: two that read from the same byte would add its rows twice.
  let last = Promise.resolve();
  const grow = () => (last = last.catch(() => {}).then(read));

  async function read() {
    for (const [name, run] of known) {
      if (!run.box.checked) continue;
      for (;;) {
        const told = await json(`/page/run?name=${encodeURIComponent(name)}&begin=${run.next}`);
        run.next = told.next;
        run.rows.push(...told.rows);
        if (!told.rows.length) break;
      }
    }
    const found = new Set();
    for (const run of known.values()) if (run.box.checked) for (const row of run.rows) for (const key of Object.keys(row)) if (!["step", "split"].includes(key)) found.add(`${row.split}: ${key}`);
    const chosen = metric.value || "train: loss";
    metric.replaceChildren(...[...found].sort().map((key) => el("option", {}, key)));
    if (found.has(chosen)) metric.value = chosen;
    draw();
  }

  function draw() {
    const cut = metric.value.indexOf(": ");
    const [split, key] = [metric.value.slice(0, cut), metric.value.slice(cut + 2)];
    const lines = [...known].filter(([, run]) => run.box.checked).map(([name, run]) => {
      let held = null;
      const points = run.rows.filter((row) => row.split === split && typeof row[key] === "number").map((row) => {
        held = held === null ? row[key] : Number(smooth.value) * held + (1 - Number(smooth.value)) * row[key];
        return [row.step, held];
      });
      return { name, points: log.checked ? points.filter(([, y]) => y > 0) : points };
    }).filter((line) => line.points.length);
    chart.replaceChildren(...(lines.length ? [plot(lines, log.checked), legend(lines)] : [el("p", { className: "hint" }, "No run with this figure is chosen.")]));
  }

  panel.append(list, el("div", { className: "row" }, metric, el("label", {}, "smoothing ", smooth), el("label", {}, log, " logarithmic")), chart);
  names();
  setInterval(() => { if (!panel.hidden && !document.hidden) names(); }, EVERY);
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function plot(lines, logarithmic) {
  const scale = logarithmic ? Math.log10 : (y) => y;
  const points = lines.flatMap((line) => line.points);
  const [x0, x1] = bounds(points.map(([x]) => x));
  const [y0, y1] = bounds(points.map(([, y]) => scale(y)));
  const px = (x) => LEFT + ((x - x0) / (x1 - x0)) * (WIDTH - LEFT - 12);
  const py = (y) => HEIGHT - BOTTOM - ((scale(y) - y0) / (y1 - y0)) * (HEIGHT - BOTTOM - TOP);
  const ticks = Array.from({ length: 5 }, (_, i) => i / 4);
  const short = (value) => Number(value.toPrecision(3)).toString();
  const grid = ticks.flatMap((t) => {
    const y = HEIGHT - BOTTOM - t * (HEIGHT - BOTTOM - TOP);
    const value = y0 + t * (y1 - y0);
    return [svg("line", { class: "grid", x1: LEFT, x2: WIDTH - 12, y1: y, y2: y }),
      svg("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, short(logarithmic ? 10 ** value : value)),
      svg("text", { x: px(x0 + t * (x1 - x0)), y: HEIGHT - 10, "text-anchor": "middle" }, short(x0 + t * (x1 - x0)))];
  });
  const curves = lines.map((line, i) => svg("polyline", {
    fill: "none", stroke: COLOURS[i % COLOURS.length], "stroke-width": 1.8,
    points: line.points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" "),
  }));
  return svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Curves of ${lines.map((line) => line.name).join(", ")}` }, ...grid, ...curves);
}

function bounds(values) {
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  return high > low ? [low, high] : [low - 0.5, high + 0.5];
}

function legend(lines) {
  return el("div", { className: "legend" }, ...lines.map((line, i) => {
    const mark = el("i");
    mark.style.background = COLOURS[i % COLOURS.length];
    const [step, value] = line.points.at(-1);
    return el("span", {}, mark, `${line.name}: ${value.toPrecision(4)} at step ${step}`);
  }));
}
