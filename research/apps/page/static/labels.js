// Completions in a hidden order, ranked by dragging or by keys; ties, undo, agreement, export.

import { call, el, json, tried } from "/page/common.js";

export function labels(panel) {
  const name = el("input", { id: "labeller", placeholder: "your name", value: localStorage.getItem("labeller") ?? "", autocomplete: "off" });
  const place = el("div", {});
  const table = el("div", { id: "agreement" });
  let sample = null;

  const next = tried(async () => {
    localStorage.setItem("labeller", name.value);
    const told = await json(`/page/labels/next?labeller=${encodeURIComponent(name.value)}`);
    sample = told.sample;
    const rules = told.guidelines ? el("details", { open: told.done === 0 }, el("summary", {}, "Guidelines"), el("p", { className: "said" }, told.guidelines)) : null;
    const progress = el("div", { className: "row" }, el("progress", { value: told.done, max: told.of, "aria-label": "Samples done" }), el("small", {}, `${told.done} of ${told.of}`));
    place.replaceChildren(...[rules, progress].filter(Boolean));
    if (!sample) {
      place.append(el("p", {}, "All samples are ranked. Thank you."));
    } else {
      place.append(el("h2", {}, "Prompt"), el("div", { className: "card said" }, shown(sample.prompt)),
        el("h2", {}, "Best on top"),
        el("p", { className: "hint" }, "Drag, or focus a card and press ↑ or ↓. = ties it with the one above, x leaves it out, Enter is next, u takes the last one back."),
        list(sample.completions));
      place.querySelector("ol li").focus();
    }
    await summary();
  });

  const rank = tried(async () => {
    if (!sample) return;
    await call("/page/labels/rank", { labeller: name.value, id: sample.id, ranks: ranks(place.querySelector("ol")) });
    await next();
  });
  const undo = tried(async () => {
    await call("/page/labels/undo", { labeller: name.value });
    await next();
  });

  async function summary() {
    const told = await json("/page/labels/summary");
    const facts = Object.entries(told.agreement ?? {}).map(([what, value]) => el("tr", {}, el("th", {}, what), el("td", {}, typeof value === "number" ? value.toFixed(3) : String(value))));
    const split = told.conflicts.map((one) => el("tr", {}, el("td", {}, one.id),
      ...one.completions.map((text) => el("td", {}, text)),
      el("td", {}, Object.entries(one.votes).map(([who, said]) => `${who}: ${said}`).join(", "))));
    table.replaceChildren(el("h2", {}, "So far"),
      el("table", {}, ...Object.entries(told.labellers).map(([who, done]) => el("tr", {}, el("th", {}, who), el("td", {}, `${done} ranked`))), ...facts),
      ...(split.length ? [el("h2", {}, "Where labellers disagree"), el("div", { className: "scroll" }, el("table", {}, ...split))] : []));
  }

  const exported = (conflicts) => tried(async () => {
    const blob = await (await call(`/page/labels/export?conflicts=${conflicts}`)).blob();
    const link = el("a", { href: URL.createObjectURL(blob), download: "preferences.jsonl" });
    link.click();
    URL.revokeObjectURL(link.href);
  });

  panel.append(
    el("div", { className: "row" }, el("label", {}, "Labeller ", name), el("button", { className: "main", id: "label", onclick: next }, "Begin"),
      el("button", { id: "ranked", onclick: rank }, "Next"), el("button", { id: "undo", onclick: undo }, "Undo"),
      ...["share", "majority", "drop"].map((how) => el("button", { onclick: exported(how) }, `Export (${how})`))),
    place, table);
  panel.addEventListener("keydown", (event) => {
    if (!event.target.closest("ol.rank")) return;
    if (event.key === "Enter") rank();
    else if (event.key === "u") undo();
    else return;
    event.preventDefault();
  });
  tried(summary)();
}

const shown = (prompt) => (typeof prompt === "string" ? prompt : prompt.map((part) => `${part.role}: ${part.content}`).join("\n"));

function list(completions) {
  const box = el("ol", { className: "rank" });
  completions.forEach((text, i) => {
    const item = el("li", { className: "card", draggable: true, tabIndex: 0 }, el("span", { className: "place" }), el("span", {}, text));
    item.dataset.at = i;
    item.ondragstart = (event) => { event.dataTransfer.effectAllowed = "move"; box.held = item; };
    item.ondragover = (event) => { event.preventDefault(); item.classList.add("over"); };
    item.ondragleave = () => item.classList.remove("over");
    item.ondrop = (event) => {
      event.preventDefault();
      item.classList.remove("over");
      const below = [...box.children].indexOf(box.held) < [...box.children].indexOf(item);
      item[below ? "after" : "before"](box.held);
      number(box);
    };
    item.onkeydown = (event) => {
      if (event.key === "ArrowUp" && item.previousElementSibling) item.previousElementSibling.before(item);
      else if (event.key === "ArrowDown" && item.nextElementSibling) item.nextElementSibling.after(item);
      else if (event.key === "=") item.dataset.tied = item.dataset.tied ? "" : "yes";
      else if (event.key === "x") item.dataset.out = item.dataset.out ? "" : "yes";
      else return;
      event.preventDefault();
      item.focus();
      number(box);
    };
    box.append(item);
  });
  number(box);
  return box;
}

// Ranks of the completions in the order in which they came; equal numbers are ties, null is left out.
function ranks(box) {
  const out = Array(box.children.length).fill(null);
  let rank = 0, seen = 0;
  for (const item of box.children) {
    if (item.dataset.out) continue;
    seen += 1;
    if (seen === 1 || !item.dataset.tied) rank = seen;
    out[Number(item.dataset.at)] = rank;
  }
  return out;
}

function number(box) {
  const told = ranks(box);
  for (const item of box.children) {
    const rank = told[Number(item.dataset.at)];
    item.firstChild.textContent = rank === null ? "–" : item.dataset.tied && rank !== 1 ? `= ${rank}` : `${rank}`;
    item.setAttribute("aria-label", `${rank === null ? "left out" : `rank ${rank}`}: ${item.lastChild.textContent}`);
  }
}
