// What all views share: elements, calls to the server, streams of events, one line for what went wrong.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export function notice(text) {
  document.getElementById("notice").textContent = text;
}

function headers() {
  const key = document.getElementById("key").value;
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function checked(response) {
  if (response.ok) return response;
  let reason = `${response.status} ${response.statusText}`;
  try {
    reason = (await response.json()).error.message;
  } catch {
    // No JSON came back; the status has to do.
  }
  if (response.status === 401) document.querySelector(".key").hidden = false;
  throw new Error(reason);
}

export async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  return checked(await fetch(path, { headers: headers(), ...options }));
}

export async function json(path, body) {
  return (await call(path, body)).json();
}

// Server-sent events of one answer, each as parsed JSON.
export async function* events(path, body, signal) {
  const response = await checked(
    await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal }),
  );
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: ?/, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

// Runs what a person asked for, and says so where it fails.
export function tried(action) {
  return async (...given) => {
    notice("");
    try {
      await action(...given);
    } catch (error) {
      if (error.name !== "AbortError") notice(error.message);
    }
  };
}
