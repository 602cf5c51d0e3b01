"use strict";
const byId = (id) => document.getElementById(id);
const data = (id) => { const found = byId(id); return found ? JSON.parse(found.textContent) : null; };
const bytes = (text) => Int8Array.from(atob(text), (c) => c.charCodeAt(0));
const option = (value, text) => { const made = document.createElement("option"); made.value = value; made.textContent = text; return made; };

// samples beside the curve: the slider moves a line over it
function samples(found) {
  const slider = byId("sample-at"), text = byId("sample"), when = byId("sample-step"), line = byId("marker");
  const show = () => {
    const [step, sample, x] = found[slider.value];
    text.textContent = sample;
    when.textContent = `step ${step.toLocaleString("en")}`;
    slider.setAttribute("aria-valuetext", when.textContent);
    if (line && x !== null) { line.setAttribute("x1", x); line.setAttribute("x2", x); }
  };
  slider.addEventListener("input", show);
  show();
}

// a text, each symbol tinted by one unit's value or by its surprise
function reading(found) {
  const text = byId("reading"), values = byId("values"), unit = byId("unit"), said = byId("expected");
  const spans = found.pieces.map((piece) => {
    const span = document.createElement("span");
    span.textContent = piece;
    text.append(span);
    return span;
  });
  let at = 0;
  const tint = (span, value) => {
    const strength = Math.min(1, Math.abs(value));
    span.style.background = strength < 0.02 ? "" : `rgba(var(--${value > 0 ? "high" : "low"}), ${(0.75 * strength).toFixed(3)})`;
  };
  const show = () => {
    if (values.value === "surprise") {
      spans.forEach((span, i) => tint(span, (found.surprise[i] ?? 0) / 6));
    } else {
      const track = bytes(found.tracks[values.value][unit.value]);
      spans.forEach((span, i) => tint(span, track[i] / 127));
    }
    for (const button of document.querySelectorAll("button[data-unit]"))
      button.setAttribute("aria-pressed", button.dataset.values === values.value && button.dataset.unit === unit.value);
  };
  const units = () => {
    const kept = Object.keys(found.tracks[values.value] ?? {});
    unit.replaceChildren(...kept.map((k) => option(k, `unit ${k}`)));
    unit.disabled = kept.length === 0;
    show();
  };
  const move = (to) => {
    spans[at].classList.remove("at");
    at = Math.max(0, Math.min(spans.length - 1, to));
    spans[at].classList.add("at");
    const named = (piece) => JSON.stringify(piece);
    const next = found.expected[at].map((piece, k) => `${named(piece)} ${(100 * found.p[at][k]).toFixed(0)} %`).join("   ");
    const surprise = found.surprise[at];
    said.textContent = `${at + 1} of ${spans.length}: ${named(found.pieces[at])}` +
      `${surprise === null ? "" : `, surprise ${surprise.toFixed(2)} nats`}; expected next: ${next}`;
  };
  values.append(option("surprise", "surprise"), ...Object.keys(found.tracks).map((name) => option(name, name)));
  values.addEventListener("change", units);
  unit.addEventListener("change", show);
  text.addEventListener("pointermove", (event) => { const k = spans.indexOf(event.target); if (k >= 0) move(k); });
  text.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, PageDown: 50, PageUp: -50, Home: -spans.length, End: spans.length }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    move(at + by);
    spans[at].scrollIntoView({ block: "nearest" });
  });
  for (const button of document.querySelectorAll("button[data-unit]"))
    button.addEventListener("click", () => {
      values.value = button.dataset.values;
      units();
      unit.value = button.dataset.unit;
      show();
    });
  const first = document.querySelector("button[data-unit]");
  if (first) first.click(); else units();
  move(0);
}

// several pictures, one of which is seen: chosen from a list, or moved through by a slider that plays
function choice(box) {
  const items = box.querySelectorAll(":scope > .item"), control = box.querySelector("select, input");
  const play = box.querySelector(".play"), told = box.querySelector("output");
  const names = told ? JSON.parse(control.dataset.names) : [];
  const show = () => {
    items.forEach((item, k) => { item.hidden = k !== Number(control.value); });
    if (told) { told.textContent = names[control.value]; control.setAttribute("aria-valuetext", told.textContent); }
    box.dispatchEvent(new CustomEvent("seen", { detail: Number(control.value) }));
  };
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; play.setAttribute("aria-pressed", "false"); play.textContent = "play"; };
  const next = () => {
    if (Number(control.value) >= items.length - 1) return stop();
    control.value = Number(control.value) + 1;
    show();
  };
  if (play) play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(control.value) >= items.length - 1) control.value = 0;
    play.setAttribute("aria-pressed", "true");
    play.textContent = "stop";
    timer = setInterval(next, 200);
    show();
  });
  control.addEventListener("input", show);
  show();
}

// a picture whose lines move with the slider above it, which begins where they end
function film(found) {
  const box = byId("film"), choice = box.querySelector(".choice"), part = (name) => box.querySelector(`[id$="-${name}"]`);
  choice.querySelector("input").value = found.names.length - 1;
  choice.addEventListener("seen", ({ detail: k }) => {
    part("moment").querySelector("text").textContent = found.names[k];
    for (const [name, frames] of Object.entries(found.paths)) part(name).querySelector("path").setAttribute("d", frames[k]);
  });
}

const views = { samples, reading, film };
for (const [name, show] of Object.entries(views)) {
  const found = data(`${name}-data`);
  if (found !== null) show(found);
}
document.querySelectorAll(".choice").forEach(choice);
