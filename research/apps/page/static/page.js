// The page: one tab for each view that the server has something for.

import { agents } from "/page/agents.js";
import { el, json, tried } from "/page/common.js";
import { documents } from "/page/documents.js";
import { labels } from "/page/labels.js";
import { playground } from "/page/playground.js";
import { runs } from "/page/runs.js";

const VIEWS = { playground, labels, documents, agents, runs };
const TITLES = { playground: "Playground", labels: "Labelling", documents: "Documents", agents: "Agents", runs: "Runs" };

async function begin() {
  const about = await json("/page/about");
  const bar = document.getElementById("tabs");
  const main = document.getElementById("views");
  bar.replaceChildren();
  main.replaceChildren();
  const tabs = about.tabs.map((name) => {
    const panel = el("section", { id: `view-${name}`, role: "tabpanel", "aria-labelledby": `tab-${name}`, hidden: true });
    const tab = el("button", { id: `tab-${name}`, role: "tab", "aria-controls": panel.id, onclick: () => show(name) }, TITLES[name]);
    bar.append(tab);
    main.append(panel);
    return { name, tab, panel, shown: null };
  });
  function show(name) {
    for (const one of tabs) {
      const on = one.name === name;
      one.tab.setAttribute("aria-selected", on);
      one.tab.tabIndex = on ? 0 : -1;
      one.panel.hidden = !on;
      if (on && !one.shown) one.shown = VIEWS[name](one.panel, about) ?? true;
    }
    history.replaceState(null, "", `#${name}`);
  }
  bar.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = tabs.findIndex((one) => one.tab === document.activeElement);
    const next = tabs[(at + step + tabs.length) % tabs.length];
    show(next.name);
    next.tab.focus();
  };
  const asked = location.hash.slice(1);
  show(about.tabs.includes(asked) ? asked : about.tabs[0]);
}

document.getElementById("key").addEventListener("change", tried(begin));
tried(begin)();
