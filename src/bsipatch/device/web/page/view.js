// From one state to what is seen of it. Elements are made, never markup from text.

import { duration, has, list, size, t, time } from "./words.js";

// of a reason's evidence, what is in bytes
const SIZES = ["needed", "free", "allowed"];

export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") element.addEventListener("click", value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

// What is being installed or removed, before and after it has moved.
function worked(state, running) {
  const live = state.installed;
  const asked = state.listed.find((one) => one.id === running.update);
  if (asked) return asked.display;
  if (running.operation === "remove" && live.improvement) return live.display;
  const wanted = running.operation === "remove" ? "removed" : "available";
  return state.listed.find((one) => one.standing === wanted)?.display ?? live.display;
}

// The headline and the sentence below it. What is live moves before the work on it is over: until
// then nothing is said to be done.
export function standing(state, running) {
  if (running && running.operation !== "check") {
    const name = worked(state, running);
    return { head: t(`doing.${running.operation}.head`, { name }), text: t("doing.text") };
  }
  const first = state.listed.find((one) => one.standing === state.standing) ?? state.listed[0];
  const values = {
    product: state.product,
    installed: state.installed.display,
    base: state.installed.base,
    name: first?.display ?? "",
    reason: state.withdrawn || state.moved || state.policy_error || state.checks.problem,
  };
  const back = state.standing === "restart" && !state.needs.on_trial;
  const key = back ? "standing.back" : `standing.${state.standing}`;
  let text = t(`${key}.text`, values);
  if (state.standing === "available") text = automatically(state, first, text);
  if (state.standing === "waiting") text = first.why.map(because).join(" ");
  if (state.standing === "unknown" && values.reason) {
    text = t(state.policy_error ? "standing.policy" : "standing.unknown.reason", values);
  }
  return { head: t(key, values), text };
}

function automatically(state, offer, text) {
  const held = offer.why.filter((why) => why.code !== "policy" || state.automatic);
  if (!state.automatic) return text;
  if (held.length) return `${t("by-itself-when")} ${held.map(because).join(" ")}`;
  return offer.by ? t("by-itself-by", { by: time(offer.by) }) : t("by-itself");
}

// One reason in the reader's language where there are words for it, else as the device says it.
export function because(why) {
  const kinds = [...(why.until ? ["until"] : []), ...Object.keys(why.evidence ?? {})];
  const known = kinds.map((kind) => `why.${why.code}.${kind}`).find(has) ?? `why.${why.code}`;
  const values = { text: why.text, until: why.until ? time(why.until) : "", ...sizes(why.evidence) };
  const sentence = t(has(known) ? known : "why.other", values);
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}

function sizes(evidence) {
  const found = {};
  for (const [name, value] of Object.entries(evidence ?? {})) {
    if (typeof value === "string") found[name] = value;
    if (typeof value === "number") {
      found[name] = SIZES.includes(name) ? size(value) : String(value);
    }
  }
  return found;
}

// What an improvement is about: components, impact, CVE ids, credit, release notes.
export function content(item) {
  const parts = [];
  if (item.security.length) {
    parts.push(h("ul", { class: "content", role: "list" }, ...item.security.map((one) => h("li", {},
      h("strong", {}, one.component),
      h("p", {}, one.impact),
      one.cves?.length ? h("p", { class: "cve" }, one.cves.join(", ")) : null,
      one.credit ? h("p", { class: "soft" }, t("credit", { credit: one.credit })) : null,
    ))));
  }
  const notes = item.release_notes ?? "";
  if (/^https?:\/\//.test(notes)) {
    parts.push(h("p", {}, h("a", { href: notes, target: "_blank", rel: "noopener noreferrer" },
      t("notes"))));
  } else if (notes) {
    parts.push(h("p", { class: "text" }, notes));
  }
  return parts;
}

export function activation(item) {
  const wanted = item.activation;
  if (!wanted) return "";
  if (wanted.scope === "restart") return t("needs.restart");
  return wanted.processes?.length ? t("needs.relaunch", { names: list(wanted.processes) })
    : t("needs.relaunch.any");
}

export function offer(item, state, busy, install) {
  const id = `offer-${item.id}`;
  const about = h("div", { class: "offer" },
    h("h3", { id }, `${state.product} ${item.display}`),
    h("p", { class: "soft" }, t("offer.facts", {
      build: item.build, size: size(item.size), published: time(item.published) })),
    ...content(item),
    h("p", { class: "soft" }, activation(item)));
  if (item.standing === "removed") about.append(h("p", {}, t("removed.explained")));
  const reasons = item.standing === "removed" ? [] : item.why;
  if (reasons.length) {
    about.append(h("h4", {}, t(item.installable ? "why.by-itself" : "why.now")),
      h("ul", {}, ...reasons.map((why) => h("li", { class: "text" }, because(why)))));
  }
  if (item.by) about.append(h("p", {}, t("by", { by: time(item.by) })));
  const off = busy || !item.installable;
  about.append(h("p", { class: "side" }, h("button", {
    type: "button", class: off ? "" : "main", "data-key": `install-${item.id}`,
    "aria-disabled": off ? "true" : false, "aria-describedby": id,
    onclick: () => { if (!off) install(item.id); },
  }, t("install"))));
  return about;
}

export function refused(item, state) {
  return h("div", { class: "offer" },
    h("h3", {}, `${state.product} ${item.display}`),
    h("ul", {}, ...item.why.map((why) => h("li", { class: "text" }, because(why)))));
}

export function installed(state) {
  const live = state.installed;
  if (!live.improvement) return [h("p", {}, t("baseline", { name: `${live.product} ${live.display}` }))];
  return [
    h("h3", {}, `${live.product} ${live.display}`),
    h("p", { class: "soft" }, t("installed.facts", { build: live.build, since: time(live.since) })),
    ...content(live),
  ];
}

export function needs(state) {
  const wanted = state.needs;
  if (wanted.scope === "restart") return t("now.restart");
  if (wanted.scope === "relaunch") {
    return t("now.relaunch", { names: list([...new Set(wanted.processes.map((one) => one.name))]) });
  }
  return "";
}

export function progress(now) {
  const name = has(`phase.${now.phase}`) ? t(`phase.${now.phase}`) : now.phase || t("phase");
  const parts = [name];
  if (now.total) parts.push(t("of", { done: size(now.done), total: size(now.total) }));
  const whole = now.left_all ?? null;
  if (whole !== null) parts.push(t("left", { time: duration(whole) }));
  else if (Number.isFinite(now.left)) parts.push(t("left.phase", { time: duration(now.left) }));
  if (now.stopping) parts.push(t("stopping"));
  return parts.join(" · ");
}

export function values(managed) {
  return h("dl", {}, ...managed.flatMap((one) => [
    h("dt", {}, has(`policy.${one.name}`) ? t(`policy.${one.name}`) : one.name),
    h("dd", {}, shown(one.value, one.name), h("span", { class: "soft" }, ` — ${one.origins.join(", ")}`)),
  ]));
}

function shown(value, name) {
  if (name === "install" || name === "removal") return t(value ? "allowed" : "forbidden");
  if (value === true) return t("on");
  if (value === false) return t("off");
  if (value === null) return t("none");
  if (Array.isArray(value)) return value.map((one) => hours(one)).join(", ") || t("none");
  const word = `value.${name}.${value}`;
  return has(word) ? t(word) : String(value);
}

function hours(one) {
  if (one?.from) {
    const days = (one.days ?? []).map((day) => t(`day.${day}`)).join(", ");
    return `${one.from}–${one.to}${days ? ` (${days})` : ""}`;
  }
  if (one?.by) return `${one.id}: ${one.by}`;
  return String(one);
}

export function happened(one) {
  const name = has(`event.${one.event}`) ? t(`event.${one.event}`) : one.event;
  return h("li", {},
    h("time", { datetime: one.time }, time(one.time)),
    h("span", { class: `level-${one.level}` }, name),
    h("div", { class: "text soft" }, one.text));
}
