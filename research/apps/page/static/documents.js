// Questions to the documents; every number in an answer opens the passage that it stands on.

import { el, json, tried } from "/page/common.js";

export function documents(panel) {
  const question = el("input", { id: "question", placeholder: "Ask the documents", "aria-label": "Question", size: 48 });
  const log = el("div", { id: "answers" });
  const passage = el("aside", { id: "passage", className: "card", "aria-live": "polite" }, el("p", { className: "hint" }, "A cited passage opens here."));
  const ask = tried(async () => {
    const asked = question.value.trim();
    if (!asked) return;
    const place = el("div", { className: "card" }, el("b", {}, asked), el("p", { className: "hint" }, "reading …"));
    log.prepend(place);
    try {
      const told = await json("/page/ask", { question: asked });
      place.replaceChildren(el("b", {}, asked), answer(told, open), sources(told, open));
      question.value = "";
    } catch (error) {
      place.remove();
      throw error;
    }
  });
  function open(one, number) {
    passage.replaceChildren(el("h2", {}, `[${number}] ${[one.title, one.heading].filter(Boolean).join(" > ") || one.source}`),
      el("small", {}, `${one.source}, from character ${one.start}`), el("p", { className: "said" }, one.text));
    passage.scrollIntoView({ block: "nearest" });
  }
  question.addEventListener("keydown", (event) => event.key === "Enter" && ask());
  panel.append(el("div", { className: "row" }, question, el("button", { className: "main", id: "ask", onclick: ask }, "Ask")),
    el("div", { className: "talk" }, log, passage));
}

function link(told, number, open) {
  const one = told.passages[number - 1];
  return one ? el("button", { className: "cite", onclick: () => open(one, number) }, `${number}`) : `${number}`;
}

function answer(told, open) {
  const line = el("p", { className: "said" });
  for (const part of told.text.split(/(\[\d+(?:\s*,\s*\d+)*\])/)) {
    if (!/^\[\d/.test(part)) line.append(part);
    else line.append("[", ...part.match(/\d+/g).flatMap((n, i) => [i ? ", " : "", link(told, Number(n), open)]), "]");
  }
  return line;
}

function sources(told, open) {
  const found = told.passages.map((one, i) => el("li", {}, link(told, i + 1, open), ` ${one.title || one.source}`));
  const dropped = told.dropped ? `; ${told.dropped} more did not fit into the window` : "";
  return el("details", {}, el("summary", {}, `${found.length} passages were read${dropped}`), el("ol", { className: "soft" }, ...found));
}
