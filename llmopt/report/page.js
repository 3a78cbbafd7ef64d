'use strict';
const charts = JSON.parse(document.getElementById('charts').textContent);
const palettes = {
  light: ['#0072b2', '#c24e00', '#00795a', '#a8487f', '#6b4c9a', '#7a5c00'],
  dark: ['#6cb6ff', '#ff9e5e', '#4fd1a5', '#f28cc4', '#bda6f2', '#e3c35c'],
};
const dashes = ['solid', 'dash', 'dot', 'dashdot', 'longdash', 'longdashdot'];

function chosen(name) { return document.querySelector(`input[name=${name}]:checked`).value; }
function theme() {
  const wanted = chosen('theme');
  return wanted === 'auto' ? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light') : wanted;
}

function draw(place) {
  const panel = charts[place.dataset.chart], colours = palettes[theme()];
  const style = getComputedStyle(document.body);
  const ink = style.getPropertyValue('--ink').trim(), line = style.getPropertyValue('--line').trim();
  const axis = (given) => ({ ...given, title: { text: given.title }, gridcolor: line, zerolinecolor: line, automargin: true });
  const traces = panel.traces.map((trace) => {
    const colour = colours[trace.side % colours.length], dash = dashes[trace.side % dashes.length];
    const drawn = { ...trace, marker: { ...trace.marker, color: colour } };
    if (trace.mode.includes('lines')) drawn.line = { ...trace.line, color: colour, width: 2, dash: trace.stackgroup ? 'solid' : dash };
    return drawn;
  });
  const shapes = panel.bands.map(([x0, x1], k) => ({ type: 'rect', xref: 'x', yref: 'paper', x0, x1, y0: 0, y1: 1, layer: 'below',
    line: { width: 0 }, fillcolor: k % 2 ? 'rgba(127,127,127,0.16)' : 'rgba(127,127,127,0.05)' }));
  const span = Math.max(...panel.bands.map((band) => band[1]), 0);
  const annotations = panel.bands.filter(([x0, x1]) => x1 - x0 > span / 12).map(([x0, x1, text]) => (
    { x: (x0 + x1) / 2, y: 1, xref: 'x', yref: 'paper', yanchor: 'top', showarrow: false, text, font: { size: 11 } }));
  Plotly.react(place, traces, { paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font: { color: ink, size: 12 },
    xaxis: axis(panel.x), yaxis: axis(panel.y), shapes, annotations, margin: { t: 30, r: 10, l: 55, b: 45 }, showlegend: true,
    legend: { orientation: 'h', y: -0.22, yanchor: 'top' }, hovermode: 'closest' }, { responsive: true, displayModeBar: false });
}

function refresh() {
  document.documentElement.lang = chosen('lang');
  if (window.Plotly) document.querySelectorAll(`article[lang=${chosen('lang')}] .plot`).forEach(draw);
}

async function start() {
  const packed = Uint8Array.from(atob(document.getElementById('plotly').textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  const script = document.createElement('script');
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  document.documentElement.classList.add('drawn'); // a hidden place has no width to draw into
  refresh();
}

document.querySelectorAll('header input').forEach((input) => input.addEventListener('change', refresh));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', refresh);
start();
