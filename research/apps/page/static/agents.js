// What agents thought, did and saw, step by step.

import { el, json, tried } from "/page/common.js";

const PARTS = ["thought", "action", "observation"];

export function agents(panel, about) {
  const list = el("select", { size: 8, "aria-label": "Traces", id: "traces" });
  const place = el("div", { id: "trace" });
  let traces = [];
  const show = (trace) => place.replaceChildren(view(trace));
  list.onchange = () => show(traces[list.value]);
  const load = tried(async () => {
    traces = await json("/page/traces");
    list.replaceChildren(...traces.map((trace, i) => el("option", { value: i }, `${trace.file}: ${title(trace)}`)));
    if (traces.length) {
      list.value = 0;
      show(traces[0]);
    } else place.replaceChildren(el("p", { className: "hint" }, "There is no trace in the folder yet."));
  });
  if (about.acts) {
    const task = el("input", { id: "task", placeholder: "Give the agent a task", "aria-label": "Task", size: 48 });
    const act = tried(async () => show(await json("/page/act", { task: task.value })));
    task.addEventListener("keydown", (event) => event.key === "Enter" && act());
    panel.append(el("div", { className: "row" }, task, el("button", { className: "main", onclick: act }, "Run")));
  }
  panel.append(el("div", { className: "row" }, el("button", { onclick: load }, "Read the traces again")), list, place);
  load();
}

const title = (trace) => trace.question ?? trace.task ?? trace.id ?? "a trace";

function view(trace) {
  const steps = trace.steps ?? [];
  const shown = steps.map((step, i) => el("div", {}, el("h2", {}, `Step ${i + 1} of ${steps.length}`),
    ...PARTS.filter((part) => step[part]).map((part) => el("div", { className: `step ${part}` }, el("b", {}, part), said(step, part))),
    ...(step.notes ?? []).map((note) => el("small", {}, note))));
  let at = 0;
  const box = el("div", { id: "steps" });
  const move = (by) => {
    at = Math.max(0, Math.min(shown.length - 1, at + by));
    box.replaceChildren(...shown.slice(0, at + 1));
    box.lastChild?.scrollIntoView({ block: "nearest" });
  };
  move(0);
  const rest = Object.entries(trace).filter(([name, value]) => !["steps", "file"].includes(name) && value !== null && value !== "");
  return el("div", {},
    el("div", { className: "row" }, el("button", { id: "next-step", onclick: () => move(1) }, "Next step"),
      el("button", { onclick: () => move(-1) }, "Back"), el("button", { onclick: () => move(shown.length) }, "All steps")),
    box,
    el("div", { className: "scroll" }, el("table", {}, ...rest.map(([name, value]) => el("tr", {}, el("th", {}, name), el("td", { className: "said" }, text(value)))))));
}

const said = (step, part) => (part === "action" && step.argument !== undefined ? `${step.action}[${step.argument}]` : text(step[part]));
const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
