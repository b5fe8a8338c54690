// Talks to the device, keeps the page as the device is, and does what the buttons say.

import * as view from "./view.js";
import { has, load, preferred, t, time, wrong } from "./words.js";

const $ = (id) => document.getElementById(id);
const FEW = 5;
const ALL = 200;
// what the store's own history tells as well
const TWICE = new Set(["installed", "taken-off"]);
let csrf = "";
let state = null;
let running = null;
let phase = "";
// what the open question is to be told
let answer = null;
let everything = false;
const drawn = new Map();

async function call(method, path, body) {
  const headers = { "X-Bsipatch-Csrf": csrf };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw { error: "gone", message: t("gone") };
  }
  const told = await answer.json().catch(() => ({ message: answer.statusText }));
  if (!answer.ok) throw told;
  return told;
}

function problem(told) {
  const key = `error.${told.error}`;
  $("problem").textContent = told
    ? has(key) ? t(key) : wrong(told.error, told.message, told.hint) : "";
  $("problem").hidden = false;
}

function say(text, bad = false) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", bad);
}

async function act(method, path, body) {
  say("");
  try {
    return await call(method, path, body);
  } catch (told) {
    if (["gone", "no-session"].includes(told.error)) problem(told);
    else say(wrong(told.error, told.message, told.hint), true);
    return null;
  }
}

// --- what is seen ---

// Replaces children only when they are others, and leaves the focus where it was.
function fill(element, facts, make) {
  const key = JSON.stringify(facts);
  if (drawn.get(element) === key) return;
  drawn.set(element, key);
  const focused = document.activeElement?.dataset?.key;
  const within = element.contains(document.activeElement);
  element.replaceChildren(...make());
  if (within && focused) element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function off(button, is) {
  if (is) button.setAttribute("aria-disabled", "true");
  else button.removeAttribute("aria-disabled");
}

function draw() {
  if (!state) return;
  const focused = document.activeElement;
  const busy = Boolean(running) || Boolean(state.busy);
  const language = document.documentElement.lang;
  for (const id of ["standing", "automatic", "installed"]) $(id).hidden = false;
  $("product").textContent = `${state.product} ${state.installed.base}`;
  const { head, text } = view.standing(state, running);
  if ($("standing-head").textContent !== head) $("standing-head").textContent = head;
  if ($("standing-text").textContent !== text) $("standing-text").textContent = text;
  document.body.dataset.standing = state.standing;
  const needed = view.needs(state);
  $("needs").textContent = needed;
  $("needs").hidden = !needed;
  $("check").textContent = t("check");
  off($("check"), busy);
  $("checked").textContent = [
    state.checks.last_success ? t("checked", { time: time(state.checks.last_success) }) : t("never"),
    state.checks.failures ? t("failures", { count: String(state.checks.failures) }) : "",
    state.busy && !running ? t("busy", { who: state.busy }) : "",
  ].filter(Boolean).join(" ");
  drawSwitch();
  drawProgress();

  const here = state.listed.filter((one) => one.standing !== "refused");
  $("offers").hidden = !here.length;
  fill($("offers-list"), [here, busy, language], () => here.map(
    (one) => view.offer(one, state, busy, (id) => act("POST", "/v1/install", { update: id }))));
  const not = state.listed.filter((one) => one.standing === "refused");
  $("refused").hidden = !not.length;
  fill($("refused-list"), [not, language], () => not.map((one) => view.refused(one, state)));

  const live = state.installed;
  fill($("installed-body"), [live, language], () => view.installed(state));
  $("remove").textContent = t("remove");
  $("remove").parentElement.hidden = !live.improvement;
  off($("remove"), busy || !live.removable);
  $("remove-text").textContent = live.removable ? "" : managedText("removal", live.why_not_removable);

  const managed = state.policy.filter((one) => one.managed && one.name !== "organization");
  $("rules").hidden = !managed.length;
  $("rules-text").textContent = t("managed.by", { who: who() });
  fill($("rules-list"), [managed, language], () => [view.values(managed)]);

  const history = state.history.filter((one) => !(one.source === "device" && TWICE.has(one.event)));
  const shown = everything ? history : history.slice(0, FEW);
  $("history").hidden = !history.length;
  fill($("history-list"), [shown, language], () => shown.map(view.happened));
  $("more").parentElement.hidden = history.length <= FEW;
  $("more").textContent = t(everything ? "less" : "more");
  $("more").setAttribute("aria-expanded", String(everything));

  // a button that has gone takes the focus with it: it goes on at the top
  const lost = !focused.isConnected || !focused.getClientRects().length;
  if (lost && [document.body, focused].includes(document.activeElement)) $("main").focus();
}

function who() {
  return state.organization || t("administrator");
}

function managedText(name, text) {
  const known = state.policy.find((one) => one.name === name);
  return known?.managed ? t(`managed.${name}`, { who: who() }) : text;
}

function drawSwitch() {
  const value = state.policy.find((one) => one.name === "automatic");
  $("switch").setAttribute("aria-checked", String(state.automatic));
  off($("switch"), !value || value.managed);
  $("automatic-text").textContent = value?.managed
    ? t(state.automatic ? "managed.on" : "managed.off", { who: who() })
    : t(state.automatic ? "automatic.on" : "automatic.off");
}

function drawProgress() {
  const now = running;
  $("progress").hidden = !now;
  if (!now) {
    phase = "";
    return;
  }
  $("progress-head").textContent = t(`doing.${now.operation}`);
  const bar = $("bar");
  if (now.total) {
    bar.max = now.total;
    bar.value = now.done;
  } else {
    bar.removeAttribute("value");
  }
  $("progress-text").textContent = view.progress(now);
  off($("stop"), now.stopping);
  $("stop").parentElement.hidden = now.process !== 0;
  if (phase !== now.phase) {
    // only the phases are announced: figures ten times a second would drown everything
    phase = now.phase;
    say(has(`phase.${phase}`) ? t(`phase.${phase}`) : "");
  }
}

// --- what happens ---

let asked = 0;
async function refresh() {
  asked += 1;
  const mine = asked;
  try {
    const found = await call("GET", `/v1/state?history=${ALL}`);
    if (mine !== asked) return;
    state = found;
    running = found.progress ?? null;
    $("problem").hidden = true;
    draw();
  } catch (told) {
    problem(told);
  }
}

function finished(outcome) {
  running = null;
  const known = `done.${outcome.operation}${outcome.changed ? "" : ".nothing"}`;
  if (!outcome.ok) {
    const stopped = outcome.error === "cancelled";
    say(stopped ? t("stopped") : `${t("failed")} ${wrong(outcome.error, outcome.text, outcome.hint)}`,
      !stopped);
  } else if (outcome.operation === "check") {
    say(t("done.check"));
  } else {
    say([t(known), ...outcome.notes].join(" "));
  }
  refresh();
}

function follow() {
  const events = new EventSource(`/v1/events?csrf=${encodeURIComponent(csrf)}`);
  events.addEventListener("progress", (event) => {
    const begins = !running;
    running = JSON.parse(event.data).progress;
    if (begins) draw();
    else drawProgress();
  });
  // the operation of another process comes and goes with the state
  events.addEventListener("finished", (event) => finished(JSON.parse(event.data).outcome));
  events.addEventListener("changed", refresh);
  events.addEventListener("error", () => {
    // the browser tries again by itself while the server is there
    if (events.readyState === EventSource.CLOSED) problem({ error: "gone" });
    else refresh();
  });
}

// The dialog's own "close" comes later than its closing, when it may be open for the next question:
// what a button says is the answer, and that event counts only where no button was pressed.
function settle(sure) {
  const told = answer;
  answer = null;
  $("ask").close();
  told?.(sure);
}

function ask(head, text, yes) {
  answer?.(false);
  const dialog = $("ask");
  $("ask-head").textContent = head;
  $("ask-text").textContent = text;
  $("ask-yes").textContent = yes;
  dialog.showModal();
  $("ask-no").focus();
  return new Promise((resolve) => {
    answer = resolve;
  });
}

function on(id, what) {
  $(id).addEventListener("click", () => {
    if ($(id).getAttribute("aria-disabled") !== "true") what();
  });
}

function listen() {
  on("check", () => act("POST", "/v1/check", {}));
  on("stop", () => act("POST", "/v1/cancel", {}));
  on("switch", async () => {
    if (await act("PUT", "/v1/settings", { automatic: !state.automatic })) await refresh();
  });
  on("remove", async () => {
    const name = state.installed.display;
    const sure = await ask(t("ask.remove", { name }), t("ask.remove.text", {
      base: state.installed.base }), t("remove"));
    if (sure) await act("POST", "/v1/remove", {});
  });
  on("more", () => {
    everything = !everything;
    draw();
  });
  $("ask-no").addEventListener("click", () => settle(false));
  $("ask-yes").addEventListener("click", () => settle(true));
  $("ask").addEventListener("close", () => {
    if (!$("ask").open) settle(false);
  });
  $("language").addEventListener("change", async () => {
    await load($("language").value);
    draw();
  });
}

async function enter() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) {
    // of this tab and this port; a cookie alone is not enough
    csrf = sessionStorage.getItem("csrf") ?? "";
    if (!csrf) throw { error: "no-session" };
    return;
  }
  // gone from the address before anything else can read it
  window.history.replaceState(null, "", "/");
  csrf = (await call("POST", "/v1/session", { token })).csrf;
  sessionStorage.setItem("csrf", csrf);
}

await load(preferred());
$("language").value = document.documentElement.lang;
listen();
try {
  await enter();
  await refresh();
  follow();
} catch (told) {
  problem(told);
}
