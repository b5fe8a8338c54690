// Words, numbers and times in the reader's language.

const LANGUAGES = ["en", "de"];
let words = {};
let language = "en";

export function preferred() {
  const kept = localStorage.getItem("language");
  const asked = [kept, ...navigator.languages].filter(Boolean);
  const short = asked.map((name) => name.toLowerCase().split("-")[0]);
  return short.find((name) => LANGUAGES.includes(name)) ?? "en";
}

export async function load(name) {
  const answer = await fetch(`/${name}.json`);
  words = await answer.json();
  language = name;
  localStorage.setItem("language", name);
  document.documentElement.lang = name;
  document.title = t("title");
  for (const element of document.querySelectorAll("[data-t]")) {
    element.textContent = t(element.dataset.t);
  }
}

export function has(key) {
  return Object.hasOwn(words, key);
}

// `{name}` in a text is replaced; a key that nobody has translated shows itself.
export function t(key, values = {}) {
  const text = has(key) ? words[key] : key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// What went wrong. The device tells it in English; where a language has words for this kind of error
// they come first, and the device's own follow, for whoever is asked for help.
export function wrong(code, text, hint) {
  const told = [text, hint].filter(Boolean).map((one) => one.replace(/\.$/, "")).join(". ");
  return has(`wrong.${code}`) ? t(`wrong.${code}`, { text: told }) : `${told}.`;
}

export function time(text) {
  const moment = new Date(text);
  if (Number.isNaN(moment.getTime())) return text;
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(moment);
}

export function size(bytes) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
  let amount = bytes;
  let unit = 0;
  while (amount >= 1000 && unit < units.length - 1) {
    amount /= 1000;
    unit += 1;
  }
  return new Intl.NumberFormat(language, {
    style: "unit",
    unit: units[unit],
    unitDisplay: unit ? "short" : "long",
    maximumFractionDigits: unit && amount < 100 ? 1 : 0,
  }).format(amount);
}

export function duration(seconds) {
  const [amount, unit] = seconds < 60 ? [Math.max(1, Math.ceil(seconds)), "second"]
    : seconds < 5400 ? [Math.ceil(seconds / 60), "minute"]
    : [Math.ceil(seconds / 3600), "hour"];
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "long" }).format(amount);
}

export function list(names) {
  return new Intl.ListFormat(language).format(names);
}
