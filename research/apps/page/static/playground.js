// One prompt, several ways to continue it side by side; how sure the model was of each token; where it looked.

import { el, events, json, tried } from "/page/common.js";

const KNOBS = {
  temperature: [1, 0, 5, 0.1],
  top_p: [1, 0.01, 1, 0.01],
  top_k: [0, 0, 1000, 1],
  min_p: [0, 0, 1, 0.01],
  repetition_penalty: [1, 0.1, 5, 0.1],
  seed: [0, 0, 2 ** 31, 1],
  max_tokens: [64, 1, 100000, 1],
};
const STRATEGIES = {
  greedy: { temperature: 0 },
  sampling: { temperature: 1 },
  "top-p": { temperature: 1, top_p: 0.9 },
  "top-k": { temperature: 1, top_k: 40 },
  "min-p": { temperature: 1, min_p: 0.1 },
};
const SHOWN = 5;

export function playground(panel, about) {
  const prompt = el("textarea", { id: "prompt", value: "Once upon a time", "aria-label": "Prompt" });
  const columns = el("div", { className: "columns" });
  let running = null;
  const run = tried(async () => {
    running?.abort();
    running = new AbortController();
    await Promise.all([...columns.children].map((column) => column.run(prompt.value, running.signal)));
  });
  const add = (strategy) => columns.append(makeColumn(about, strategy));
  panel.append(
    prompt,
    el("div", { className: "row" },
      el("button", { className: "main", id: "run", onclick: run }, "Continue"),
      el("button", { id: "stop", onclick: () => running?.abort() }, "Stop"),
      el("button", { onclick: () => add("sampling") }, "Add a column"),
      el("small", {}, "Ctrl+Enter continues; hover over a token, or walk there with Tab, for its probability")),
    columns,
    attentionPart(about, prompt),
    el("div", { id: "soft-prompts" }),
  );
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
  });
  add("greedy");
  add("top-p");
  tried(() => softPrompts(about, panel.querySelector("#soft-prompts")))();
}

function makeColumn(about, strategy) {
  const model = el("select", {}, ...about.models.map((name) => el("option", {}, name)));
  const inputs = Object.fromEntries(
    Object.entries(KNOBS).map(([name, [value, min, max, step]]) => [name, el("input", { type: "number", value, min, max, step, name })]),
  );
  inputs.max_tokens.value = Math.min(inputs.max_tokens.value, Math.floor(about.window / 2)); // the prompt needs room too
  const choose = (name) => {
    for (const knob of Object.keys(KNOBS)) if (!["seed", "max_tokens"].includes(knob)) inputs[knob].value = KNOBS[knob][0];
    for (const [knob, value] of Object.entries(STRATEGIES[name])) inputs[knob].value = value;
  };
  const strategies = el("select", { onchange: () => choose(strategies.value) }, ...Object.keys(STRATEGIES).map((name) => el("option", {}, name)));
  strategies.value = strategy;
  choose(strategy);
  const text = el("div", { className: "text" });
  const facts = el("small", {});
  const labelled = (name, input) => el("label", {}, name.replaceAll("_", " "), input);
  const column = el("div", { className: "card" },
    el("div", { className: "row" },
      el("label", {}, "Strategy ", strategies),
      el("button", { title: "Remove this column", "aria-label": "Remove this column", onclick: () => column.remove() }, "×")),
    el("details", {}, el("summary", {}, "Knobs"),
      el("div", { className: "knobs" }, labelled("model", model), ...Object.entries(inputs).map(([name, input]) => labelled(name, input)))),
    text, facts);
  column.run = async (prompt, signal) => {
    const knobs = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, Number(input.value)]));
    const body = { model: model.value, prompt, stream: true, logprobs: SHOWN, ...knobs };
    text.replaceChildren(el("span", { className: "given" }, prompt));
    const began = performance.now();
    let tokens = 0, nll = 0, finish = "stopped";
    try {
      for await (const event of events("/v1/completions", body, signal)) {
        for (const choice of event.choices) {
          const told = choice.logprobs;
          for (let i = 0; told && i < told.tokens.length; i++) {
            text.append(token(told.tokens[i], told.token_logprobs[i], told.top_logprobs?.[i] ?? {}));
            tokens += 1;
            nll -= told.token_logprobs[i];
          }
          finish = choice.finish_reason ?? finish;
        }
      }
    } finally {
      const seconds = (performance.now() - began) / 1000;
      const sure = tokens ? `, perplexity ${Math.exp(nll / tokens).toFixed(2)}` : "";
      facts.textContent = `${tokens} tokens in ${seconds.toFixed(1)} s (${finish})${sure}`;
    }
  };
  return column;
}

function token(text, logprob, others) {
  const p = Math.exp(logprob);
  const node = el("span", { className: "token", tabIndex: 0 }, text);
  node.style.setProperty("--p", p.toFixed(3));
  const rows = Object.entries(others).sort((a, b) => b[1] - a[1]);
  const show = () => {
    const box = document.getElementById("hover") ?? document.body.appendChild(el("div", { id: "hover", role: "tooltip" }));
    box.replaceChildren(
      el("b", {}, `${JSON.stringify(text)} ${(100 * p).toFixed(1)} %`),
      el("table", {}, ...rows.map(([word, value]) => el("tr", {}, el("td", {}, JSON.stringify(word)), el("td", {}, `${(100 * Math.exp(value)).toFixed(1)} %`)))),
    );
    const place = node.getBoundingClientRect();
    box.style.left = `${Math.min(place.left, innerWidth - box.offsetWidth - 8)}px`;
    box.style.top = `${place.bottom + 6 + box.offsetHeight > innerHeight ? place.top - box.offsetHeight - 6 : place.bottom + 6}px`;
  };
  const hide = () => document.getElementById("hover")?.remove();
  node.onmouseenter = node.onfocus = show;
  node.onmouseleave = node.onblur = hide;
  return node;
}

function attentionPart(about, prompt) {
  const layer = el("select", { "aria-label": "Layer" });
  const head = el("select", { "aria-label": "Head" });
  const model = el("select", { "aria-label": "Model" }, ...about.models.map((name) => el("option", {}, name)));
  const map = el("div", { className: "scroll" });
  let found = null;
  const draw = () => {
    if (!found) return;
    const weights = found.maps[layer.value][head.value];
    map.replaceChildren(el("table", { className: "map" }, ...weights.map((row, i) => el("tr", {},
      el("th", { scope: "row" }, found.tokens[i]),
      ...row.slice(0, i + 1).map((p, j) => {
        const cell = el("td", { title: `${JSON.stringify(found.tokens[i])} looks at ${JSON.stringify(found.tokens[j])}: ${p.toFixed(3)}` });
        cell.style.setProperty("--p", p);
        return cell;
      })))));
  };
  const numbered = (select, count) => select.replaceChildren(...Array.from({ length: count }, (_, i) => el("option", { value: i }, i + 1)));
  const look = tried(async () => {
    found = await json("/page/attention", { text: prompt.value, model: model.value });
    numbered(layer, found.maps.length);
    numbered(head, found.maps[0].length);
    draw();
  });
  layer.onchange = head.onchange = draw;
  return el("details", { id: "attention" }, el("summary", {}, "Where the model looks"),
    el("div", { className: "row" }, el("button", { onclick: look }, "Show for the prompt"), model,
      el("label", {}, "layer ", layer), el("label", {}, "head ", head)), map);
}

async function softPrompts(about, place) {
  for (const model of about.models) {
    const near = await json(`/page/nearest?model=${encodeURIComponent(model)}`);
    if (!near.length) continue;
    place.append(el("h2", {}, `Words nearest to the soft prompt of ${model}`),
      el("div", { className: "scroll" }, el("table", {}, ...near.map((row, i) => el("tr", {}, el("th", {}, `${i + 1}`),
        ...row.map(([word, cosine]) => el("td", {}, `${JSON.stringify(word)} ${cosine.toFixed(2)}`)))))));
    return; // one table serves all: adapters share it
  }
}
