// The bar chart of failure rates: a bar a window, a colour an ErrorCode. Chart is Chart.js, loaded before this module.

export const COLOURS = 6; // ErrorCodes with a colour of their own; the eye cannot tell more apart: they share the last one.

const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat("en");

/** Return the colour that a custom property has in the theme in force, as the canvas understands it. */
function colourOf(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function paler(colour) {
  return colour.replace("rgb(", "rgba(").replace(")", ", 0.45)");
}

/** Return every window from the first to the last; one without deletions is null, so that time is drawn evenly. */
function withGaps(windows) {
  if (windows.length === 0) return [];
  const width = windows[0].end - windows[0].start;
  const known = new Map(windows.map((window) => [window.start, window]));
  const all = [];
  for (let start = windows[0].start; start <= windows.at(-1).start; start += width) {
    all.push({ start, end: start + width, window: known.get(start) ?? null });
  }
  return all;
}

/** Split the failures of a window into those of the coloured codes, and the rest. */
function parts(window, coloured) {
  if (window === null) return Array(coloured + 1).fill([0, 0]);
  const rest = window.shares.slice(coloured).reduce((sum, [failures]) => sum + failures, window.others[0]);
  return [...window.shares.slice(0, coloured), [rest, window.total ? rest / window.total : 0]];
}

export class RateChart {
  /** `clock` writes a window's start for the axis, `span` a window's interval for the tooltip. */
  constructor(canvas, { clock, span }) {
    this.clock = clock;
    this.span = span;
    this.slots = [];
    this.rates = { codes: [], windows: [] };
    this.chart = new Chart(canvas, {
      type: "bar",
      data: { labels: [], datasets: [] },
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        datasets: { bar: { categoryPercentage: 0.86, barPercentage: 1, maxBarThickness: 34, borderWidth: { top: 1 } } },
        scales: {
          x: { stacked: true, grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 18 } },
          y: { stacked: true, beginAtZero: true, suggestedMax: 0.02, border: { display: false },
               ticks: { maxTicksLimit: 6, callback: (value) => percent.format(value) } },
        },
        plugins: {
          legend: { display: false }, // The table below is the legend, as a canvas has no text to read.
          tooltip: {
            padding: 10,
            filter: (item) => item.dataset.failures[item.dataIndex] > 0,
            callbacks: {
              title: (items) => (items.length ? this.span(this.slots[items[0].dataIndex]) : ""),
              label: (item) =>
                ` ${item.dataset.label}: ${whole.format(item.dataset.failures[item.dataIndex])} (${percent.format(item.raw)})`,
              footer: (items) => (items.length ? this.sum(this.slots[items[0].dataIndex].window) : ""),
            },
          },
        },
      },
    });
  }

  sum(window) {
    return `${whole.format(window.failures)} of ${whole.format(window.total)} failed (${percent.format(window.rate)})`;
  }

  /** Show `rates`, as the event of that name brings them. */
  show(rates) {
    this.rates = rates;
    this.slots = withGaps(rates.windows);
    const coloured = Math.min(COLOURS, rates.codes.length);
    const split = this.slots.map((slot) => parts(slot.window, coloured));
    const card = colourOf("--card");
    const names = [...rates.codes.slice(0, coloured), "other codes"];
    this.chart.data.labels = this.slots.map((slot) => this.clock(slot.start));
    this.chart.data.datasets = names.map((label, index) => {
      const colour = colourOf(`--c${index < coloured ? index : COLOURS}`);
      return {
        label,
        data: split.map((slot) => slot[index][1]),
        failures: split.map((slot) => slot[index][0]),
        backgroundColor: this.slots.map(({ window }) => (window?.complete ? colour : paler(colour))),
        borderColor: card, // A gap between the parts of a bar: colours alone do not tell them apart for everyone.
      };
    });
    this.recolour();
  }

  /** Take the axes' and the tooltip's colours from the theme, and draw. */
  recolour() {
    const { scales, plugins } = this.chart.options;
    scales.x.ticks.color = scales.y.ticks.color = colourOf("--quiet");
    scales.x.border = { color: colourOf("--line") };
    scales.y.grid = { color: colourOf("--line") };
    Object.assign(plugins.tooltip, {
      backgroundColor: colourOf("--ink"), titleColor: colourOf("--card"), bodyColor: colourOf("--card"),
      footerColor: colourOf("--card"),
    });
    this.chart.update("none");
  }
}
