"use strict";
// Draws the charts of the page, one in each figure with a data-chart, from the JSON in it.
const { runs, search } = JSON.parse(document.getElementById("data").textContent);
const colour = (name) => {
  // Canvas knows no light-dark(): the browser resolves it.
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(--${name})`;
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
};
const ms = (us) => us / 1000;
const orNull = (value, known) => (known ? value : null);
const line = (label, stroke, more) => ({ label, stroke, width: 2, points: { show: false }, ...more });
const number = (value) => (value == null ? "–" : +value.toPrecision(4) + "");
const LOG = { distr: 3 };
const seconds = { label: "seconds from the start" };

// A chart is { x: axis, y: axis, scales, series: [[series, values], ...], xs: values }.
const CHARTS = {
  rate() {
    const bySecond = runs[0].seconds;
    const until = (name) => bySecond.findLastIndex((second) => second[name] > 0);
    // A line ends with its last POST: answers come after nothing is planned any more.
    const values = (name) => bySecond.map((second, place) => orNull(second[name], place <= until(name)));
    return {
      x: seconds, y: { label: "POSTs a second" }, xs: middles(bySecond),
      series: [
        [line("planned", "grey", { width: 6 }), values("planned")],
        [line("sent", "blue"), values("sent")],
        [line("answered", "orange", { dash: [6, 4] }), values("answered")],
        [line("errors", "red"), values("errors")],
      ],
    };
  },
  latency() {
    const bySecond = runs[0].seconds;
    const shown = [["max", "max_us", "red"], ["p99.9", "p99_9_us", "orange"], ["p99", "p99_us", "green"],
      ["p90", "p90_us", "sky"], ["p50", "p50_us", "blue"]];
    return {
      x: seconds, y: { label: "ms" }, scales: { y: LOG }, xs: middles(bySecond),
      // A second of which nothing was answered has no times.
      series: shown.map(([label, name, stroke]) => [
        line(label, stroke), bySecond.map((second) => orNull(ms(second[name]), second.max_us > 0)),
      ]),
    };
  },
  percentiles() {
    const curves = runs.length > 1
      ? [["A", runs[0].latency], ["B", runs[1].latency]]
      : [["latency, from the planned time", runs[0].latency], ["service time, from when it left", runs[0].service_time]];
    // By the number of nines: each is as wide as the one before.
    const most = Math.log10(Math.max(10, ...curves.map(([, times]) => times.count)));
    const nines = Array.from({ length: 201 }, (_, step) => (step / 200) * Math.min(most, 4));
    const marks = [[0, "0"], [-Math.log10(0.5), "50"], [1, "90"], [2, "99"], [3, "99.9"], [4, "99.99"]];
    const text = (nine) => marks.find(([at]) => Math.abs(at - nine) < 1e-6)?.[1] ?? number(100 * (1 - 10 ** -nine));
    return {
      x: { label: "percentile", splits: marks.map(([at]) => at), values: text }, y: { label: "ms" },
      scales: { y: LOG }, xs: nines,
      series: curves.map(([label, times], place) => [
        line(label, ["blue", "orange"][place], place ? { dash: [6, 4] } : {}),
        nines.map((nine) => ms(quantile(times, 1 - 10 ** -nine))),
      ]),
    };
  },
  histogram() {
    // Steps of a twentieth of a decade, named by where they begin.
    const step = (us) => Math.floor(Math.log10(Math.max(us, 1)) * 20);
    const shares = (times) => {
      const shares = new Map();
      for (const [us, count] of times.buckets) shares.set(step(us), (shares.get(step(us)) ?? 0) + (100 * count) / times.count);
      return shares;
    };
    const both = [shares(runs[0].latency), shares(runs[0].service_time)];
    const steps = both.flatMap((shares) => [...shares.keys()]);
    const first = Math.min(...steps);
    const all = Array.from({ length: Math.max(...steps) - first + 2 }, (_, place) => first + place);
    const stepped = { paths: uPlot.paths.stepped({ align: 1 }) };
    return {
      x: { label: "ms" }, y: { label: "% of POSTs" }, scales: { x: LOG }, xs: all.map((at) => ms(10 ** (at / 20))),
      series: [
        [line("latency", "sky", { ...stepped, fill: "sky" }), all.map((at) => both[0].get(at) ?? 0)],
        [line("service time", "red", stepped), all.map((at) => both[1].get(at) ?? 0)],
      ],
    };
  },
  landed() {
    const landed = [0, ...runs[0].truth.landed_by_second];
    const accepted = [0];
    for (const second of runs[0].seconds) accepted.push(accepted.at(-1) + second.accepted_events);
    const ends = Array.from({ length: Math.max(landed.length, accepted.length) }, (_, place) => place);
    const at = (sums) => ends.map((end) => sums[end] ?? null);
    return {
      x: seconds, y: { label: "events" }, xs: ends,
      series: [[line("accepted", "grey", { width: 6 }), at(accepted)], [line("landed", "blue"), at(landed)]],
    };
  },
  lag() {
    const bySecond = runs[0].seconds;
    return {
      x: seconds, y: { label: "ms" }, scales: { y: LOG }, xs: middles(bySecond),
      series: [[line("lag p99", "blue"), bySecond.map((second) => orNull(ms(Math.max(second.lag_p99_us, 1)), second.sent > 0))]],
    };
  },
  metric(figure) {
    const metric = runs[0].system_metrics[figure.dataset.metric];
    const minute = (at) => Math.floor(at / 60) - Math.floor(runs[0].started_unix_ms / 60000);
    const last = minute(metric.points.at(-1)[0]);
    const values = Array(last + 1).fill(null);
    const [scale, unit] = metric.unit === "Bytes" ? [1e6, "MB"] : [1, metric.unit];
    for (const [at, value] of metric.points) values[minute(at)] = value / scale;
    const bars = { paths: uPlot.paths.bars({ align: 1, size: [0.9, 60] }), fill: "blue" };
    return {
      x: { label: "minutes", incrs: [1, 2, 5, 10, 30, 60, 600] }, y: { label: unit }, height: 170,
      scales: { x: { range: [0, last + 1] } }, xs: values.map((_, place) => place),
      series: [[line(metric.statistic, "blue", bars), values]],
    };
  },
  search() {
    const steps = search.steps.toSorted((a, b) => a.rate - b.rate);
    const shown = [["p99.9", "p99_9_us", "orange"], ["p99", "p99_us", "green"], ["p50", "p50_us", "blue"]];
    return {
      x: { label: "POSTs a second" }, y: { label: "ms" }, scales: { x: LOG, y: LOG }, xs: steps.map((step) => step.rate),
      series: shown.map(([label, name, stroke]) => [
        line(label, stroke, { points: { show: true, size: 7 } }),
        steps.map(({ result }) => orNull(ms(result.latency[name]), result.latency.count > 0)),
      ]),
    };
  },
};

function middles(bySecond) {
  return bySecond.map((_, place) => place + 0.5);
}

function quantile(times, share) {
  let below = 0;
  for (const [us, count] of times.buckets) {
    below += count;
    if (below >= share * times.count) return us;
  }
  return null;
}

// Of less than a decade, noise would look large. What has no value gets one too.
function decades(_, low, high) {
  if (!(low > 0)) return [1, 10];
  const more = Math.max(0, 1 - Math.log10(high / low)) / 2;
  const toDigit = (round, value) => {
    const unit = 10 ** Math.floor(Math.log10(value));
    return round(value / unit) * unit;
  };
  return [toDigit(Math.floor, low / 10 ** more), toDigit(Math.ceil, high * 10 ** more)];
}

function draw(figure) {
  const { x, y, xs, series, scales = {}, height = 300 } = CHARTS[figure.dataset.chart](figure);
  const paint = (one) => ({ ...one, stroke: colour(one.stroke), ...(one.fill && { fill: colour(one.fill) }) });
  const axis = (one, more) => ({
    stroke: colour("text"), grid: { stroke: colour("grid"), width: 1 }, ticks: { stroke: colour("grid") },
    ...more, ...one,
    ...(one.splits && { splits: (_, place, low, high) => one.splits.filter((at) => at <= high) }),
    values: (_, splits) => splits.map((split) => (split == null ? "" : (one.values ?? ((value) => value.toLocaleString("en")))(split))),
  });
  const range = (scale, linear) => ({ time: false, range: scale?.distr === 3 ? decades : linear, ...scale });
  const few = figure.closest(".small") ? 40 : 60;
  return new uPlot(
    {
      width: figure.clientWidth, height,
      series: [{ label: x.label, value: (_, value) => (x.values ? x.values(value) : number(value)) },
        ...series.map(([one]) => ({ ...paint(one), value: (_, value) => number(value) }))],
      axes: [axis(x, { space: 45 }), axis(y, { size: 64, space: few / 2 })],
      scales: {
        x: range(scales.x, (_, low, high) => [Math.min(0, low), high > 0 ? high : 1]),
        y: range(scales.y, (_, low, high) => [0, high > 0 ? high * 1.05 : 1]),
      },
    },
    [xs, ...series.map(([, values]) => values)],
    figure,
  );
}

const charts = new Map();
function drawAll() {
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    charts.get(figure)?.destroy();
    charts.set(figure, draw(figure));
  }
}
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
addEventListener("resize", () => {
  for (const [figure, chart] of charts) chart.setSize({ width: figure.clientWidth, height: chart.height });
});
