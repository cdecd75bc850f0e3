// Draws the page from the stream of /events. What Kafka's records say is only ever set as text, never as markup.
import { COLOURS, RateChart } from "./chart.js";

const SILENCE_MS_MAX = 4000; // The server says every second how things are.
const KAFKA_SILENCE_MS_MAX = 5000;
const RECONNECT_MS = 3000; // After a refusal, after which an EventSource does not try again by itself.

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 2, maximumFractionDigits: 2 });
const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

// ---------------------------------------------------------------- making elements

function element(tag, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

const heading = (text, ...children) => element("th", { scope: "row", text }, ...children);
const number = (value) => element("td", { class: "number" }, element("data", { value, text: whole.format(value) }));
const share = (value) => element("td", { class: "number" }, element("data", { value, text: percent.format(value) }));
const bytes = (value) => (value < 1 << 20 ? `${whole.format(Math.ceil(value / 1024))} KiB` : `${whole.format(Math.round(value / (1 << 20)))} MiB`);

/** An instant of the log in UTC; the reader's own time is its tooltip. */
function instant(at, text) {
  const iso = new Date(at).toISOString().replace(".000Z", "Z");
  return element("time", { datetime: iso, title: `${local.format(at)} your time`, text });
}

/** hh:mm, with seconds if the windows do not start at whole minutes, and the date if it is not `day`. */
function clock(at, { day = null } = {}) {
  const iso = new Date(at).toISOString();
  const [first] = rates.windows;
  const time = iso.slice(11, first && (first.end - first.start) % 60000 === 0 ? 16 : 19);
  return day === null || iso.startsWith(day) ? time : `${iso.slice(5, 10)} ${time}`;
}

function ago(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  return seconds < 120 ? `${seconds} s ago` : seconds < 7200 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

// ---------------------------------------------------------------- sections

let rates = { codes: [], code_count: 0, windows: [] };
const chart = new RateChart($("chart"), {
  clock,
  span: ({ start, end }) => `${clock(start)} to ${clock(end)} UTC (${local.format(start)} your time)`,
});

function showRates(data) {
  rates = data;
  const { windows } = rates;
  const failures = windows.reduce((sum, window) => sum + window.failures, 0);
  const total = windows.reduce((sum, window) => sum + window.total, 0);
  const complete = windows.findLast((window) => window.complete) ?? null;
  $("empty").hidden = windows.length > 0;
  $("rates").hidden = windows.length === 0;
  $("tile-rate").replaceChildren(windows.length ? element("data", { value: total ? failures / total : 0, text: percent.format(total ? failures / total : 0) }) : "\u2013");
  $("tile-rate-note").textContent = complete
    ? `${percent.format(complete.rate)} in the last complete window`
    : "of the windows shown; none is complete";
  $("tile-total").replaceChildren(element("data", { value: total, text: whole.format(total) }));
  $("tile-total-note").textContent = windows.length === 1 ? "in the one window shown" : `in the ${windows.length} windows shown`;
  showCodes(total, complete);
  showWindows();
  showRows();
  if (windows.length) {
    chart.show(rates);
    const last = windows.at(-1);
    $("chart").setAttribute(
      "aria-label",
      `Failure rates of ${windows.length} windows, ${clock(windows[0].start)} to ${clock(last.end)} UTC: ` +
        `${percent.format(total ? failures / total : 0)} of all deletions failed. The tables below have the same numbers.`,
    );
  }
}

function showCodes(total, complete) {
  const sums = rates.codes.map((_, index) => rates.windows.reduce((sum, window) => sum + window.shares[index][0], 0));
  const rows = rates.codes.map((code, index) =>
    codeRow(code, index, sums[index], total, complete && complete.shares[index][1]),
  );
  const unnamed = rates.code_count - rates.codes.length;
  if (unnamed > 0) {
    const others = rates.windows.reduce((sum, window) => sum + window.others[0], 0);
    rows.push(codeRow(`${whole.format(unnamed)} more`, COLOURS, others, total, complete && complete.others[1]));
  }
  if (!rows.length) rows.push(element("tr", {}, element("td", { colspan: 4, class: "quiet", text: "No deletion failed." })));
  fill($("codes").tBodies[0], rows);
}

/** An ErrorCode that may be broken between its words. */
function breakable(code) {
  return code.split(/(?<=\.)|(?<=[a-z])(?=[A-Z])/).flatMap((part, index) => (index ? [document.createElement("wbr"), part] : [part]));
}

function codeRow(code, index, failures, total, last) {
  const name = heading(undefined, element("span", { class: "swatch", "data-colour": Math.min(index, COLOURS), "aria-hidden": "true" }), ...breakable(code));
  const cell = last === null ? element("td", { class: "number", text: "\u2013" }) : share(last);
  return element("tr", {}, name, number(failures), share(total ? failures / total : 0), cell);
}

/** Which partitions hold a window back: they are named, and those beyond 20 are counted. */
function waits({ waiting_for: named, waiting_for_total: all }) {
  if (!all) return "";
  const more = all > named.length ? ` and ${whole.format(all - named.length)} more` : "";
  return `, waits for ${all === 1 ? "partition" : "partitions"} ${named.join(", ")}${more}`;
}

function showWindows() {
  const newest = rates.windows.at(-1);
  const day = newest ? new Date(newest.start).toISOString().slice(0, 10) : "";
  $("windows-caption").textContent = newest ? `Newest first, ${day} UTC` : "None yet";
  fill($("windows").tBodies[0], rates.windows.toReversed().map((window) => {
    const late = window.late ? `, ${whole.format(window.late)} late` : "";
    const state = element("td", { class: window.complete ? "complete" : "open", text: window.complete ? `complete${late}` : `open${waits(window)}` });
    if (window.revision) state.title = `corrected ${window.revision} times`;
    return element("tr", {}, heading(undefined, instant(window.start, clock(window.start, { day }))), number(window.total), number(window.failures), share(window.rate), state);
  }));
}

/** The row of every window and code, as the topic has them; only while they are open. */
function showRows() {
  if (!$("details").open) return;
  const newest = rates.windows.at(-1);
  const day = newest ? new Date(newest.start).toISOString().slice(0, 10) : "";
  fill($("rows").tBodies[0], rates.windows.toReversed().flatMap((window) => {
    const row = (code, failures, rate) =>
      element("tr", {}, heading(undefined, instant(window.start, clock(window.start, { day }))), element("td", { text: code }), number(failures), share(rate));
    const codes = window.shares
      .map(([failures, rate], index) => [rates.codes[index], failures, rate])
      .filter(([, failures]) => failures > 0);
    if (window.others[0] > 0) codes.push(["other codes", ...window.others]);
    return [row("all", window.failures, window.rate), ...codes.map((code) => row(...code))];
  }));
}

function showStats({ received: all, outcomes, reasons, event_types: eventTypes, lag, positions, watermark, spooled }) {
  if (received !== null && all !== received) receivedAt = performance.now();
  received = all;
  const row = (name, value, kind) => element("tr", { class: kind }, heading(name), number(value), share(all ? value / all : 0));
  const under = (found) => Object.entries(found).filter(([, value]) => value > 0);
  fill($("outcomes").tBodies[0], [
    row("accepted", outcomes.accepted, "whole"),
    row("duplicate", outcomes.duplicate, "whole"),
    row("rejected", outcomes.rejected, "whole"),
    ...under(reasons).map(([reason, value]) => row(reason, value, "part")),
    row("ignored", outcomes.ignored, "whole"),
    ...under(eventTypes).map(([type, value]) => row(type, value, "part")),
  ]);
  fill($("outcomes").tFoot, [row("received", all, "whole")]);

  $("tile-lag").replaceChildren(element("data", { value: lag, text: whole.format(lag) }));
  $("tile-lag").classList.toggle("warn", lag > 10000);
  fill($("positions").tBodies[0], positions.map((position) => {
    const committed = position.committed === null ? element("td", { class: "number", text: "none" }) : number(position.committed);
    return element("tr", {}, heading(String(position.partition)), number(position.end), committed, number(position.lag));
  }));
  const until = watermark === null ? "Not every partition has been read yet." : "Event time is complete up to ";
  $("watermark").replaceChildren(until, ...(watermark === null ? [] : [instant(watermark, `${new Date(watermark).toISOString().slice(0, 19).replace("T", " ")} UTC`), "."]));

  $("tile-spool").replaceChildren(spooled === null ? "\u2013" : element("data", { value: spooled.records, text: whole.format(spooled.records) }));
  $("tile-spool").classList.toggle("warn", Boolean(spooled?.records));
  $("tile-spool-note").textContent =
    spooled === null ? "the bridge does not answer, or has none"
    : spooled.records === 0 ? "no callback waits on disk"
    : `callbacks wait on disk, ${bytes(spooled.bytes)}` + (spooled.oldest === null ? "" : `, since ${new Date(spooled.oldest).toISOString().slice(11, 19)} UTC`);
}

function showRejections(rejections) {
  $("rejections").hidden = rejections.length === 0;
  $("no-rejections").hidden = rejections.length > 0;
  fill($("rejections"), rejections.map(({ partition, offset, at, reason, detail, media_id: mediaId }) => {
    const time = instant(at, `${new Date(at).toISOString().slice(5, 19).replace("T", " ")} UTC`);
    time.className = "quiet";
    const where = element("p", { class: "quiet" }, "raw ", element("span", { class: "mono", text: `${partition}:${offset}` }));
    if (mediaId !== null) where.append(" \u00b7 MediaId ", element("span", { class: "mono", text: mediaId }));
    return element("li", {},
      element("p", { class: "head" }, element("span", { class: "reason", text: reason }), time),
      element("p", { class: "detail", text: detail }), where);
  }));
}

/** Replace the rows of `parent`, unless they are the same: a reader's selection and a screen reader's place survive. */
function fill(parent, rows) {
  const next = parent.cloneNode(false);
  next.append(...rows);
  if (!next.isEqualNode(parent)) parent.replaceChildren(...next.childNodes);
}

// ---------------------------------------------------------------- the stream and its state

let stream = null;
let status = null; // The last `status` event.
let heardAt = null; // When anything came last, by performance.now().
let received = null; // How many records have come in, and when the last did: the watermark alone moves for ever.
let receivedAt = null;

function connect() {
  stream?.close();
  stream = new EventSource("events");
  const on = (name, show) => stream.addEventListener(name, (event) => {
    heardAt = performance.now();
    show(JSON.parse(event.data));
    tell();
  });
  on("rates", showRates);
  on("stats", showStats);
  on("rejections", showRejections);
  on("status", (data) => { status = data; });
  const opened = stream;
  stream.addEventListener("error", () => {
    if (opened.readyState === EventSource.CLOSED) setTimeout(() => { if (stream === opened) connect(); }, RECONNECT_MS);
    tell();
  });
}

/** Return the page's state, in one word for the style and one sentence for people, and how old the numbers are. */
function state() {
  const now = performance.now();
  if (heardAt === null) return ["waiting", "Connecting", ""];
  if (now - heardAt > SILENCE_MS_MAX || stream.readyState !== EventSource.OPEN) {
    return ["stale", "Disconnected, trying again", `last update ${ago(now - heardAt)}`];
  }
  if (status === null) return ["waiting", "Connecting", ""];
  const read = status.read_at === null ? "Kafka has not been read yet" : `Kafka last read ${ago(status.now - status.read_at)}`;
  if (status.problem !== null) return ["broken", status.problem, read];
  if (status.read_at === null) return ["waiting", "Reading the topics", ""];
  if (status.now - status.read_at > KAFKA_SILENCE_MS_MAX) return ["stale", "Waiting for Kafka", read];
  return ["live", "Live", receivedAt === null ? "" : `last record ${ago(now - receivedAt)}`];
}

function tell() {
  const [kind, sentence, age] = state();
  const shown = $("status");
  if (shown.textContent !== sentence) shown.textContent = sentence; // A live region: it is read out at each change.
  shown.dataset.state = kind;
  $("age").textContent = age;
  $("main").toggleAttribute("data-stale", kind === "stale" || kind === "broken");
}

setInterval(tell, 1000);
// A page that is not seen holds no place in the server, and no connection of the few a browser has for it.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { stream?.close(); stream = null; heardAt = null; } else connect();
});
$("details").addEventListener("toggle", showRows);

// ---------------------------------------------------------------- theme

for (const choice of document.querySelectorAll("input[name=theme]")) {
  choice.checked = choice.value === (document.documentElement.dataset.theme ?? "system");
  choice.addEventListener("change", () => {
    if (choice.value === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice.value;
    try {
      localStorage.setItem("theme", choice.value);
    } catch {
      // Storage is blocked: the choice lasts as long as the page.
    }
    chart.show(rates);
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.show(rates));
if (!document.hidden) connect();
tell();
