"use strict";
// The page: a WebSocket for what is heard now, a request for a recording. All text is set as text, never as HTML.

const at = id => document.getElementById(id);
const say = (id, text) => { at(id).textContent = text; };
const WORDS = {genuine: "a living person", replay: "a playback device", undecided: "undecided"};
const verdictOf = genuine => genuine === true ? "genuine" : genuine === false ? "replay" : "undecided";
const signed = score => (score >= 0 ? "+" : "") + score.toFixed(2);

let facts = {threshold: null, max_bytes: Infinity};
let live = {scores: [], seconds: 0, azimuth: null};
let shown = null;

function introduce(about) {
  facts = about;
  const eer = about.dev_eer == null ? "" : `, equal error rate ${(100 * about.dev_eer).toFixed(1)} % on the recordings that set its threshold`;
  say("about", `Did a living person say this, or a playback device? Detector: ${about.system}${eer}.`);
  at("simulated").hidden = !about.simulated;
  at("live").hidden = !about.live;
  if (about.live) say("live-title", `Live: ${about.source}${about.array ? ", array " + about.array : ""}`);
  const list = at("array");
  if (list.options.length === 1) {
    for (const [name, words] of Object.entries(about.arrays))
      list.append(new Option(words ? `${name}: ${words}` : name, name, false, name === about.array));
  }
}

function hear(message) {
  live.seconds = message.seconds;
  const state = at("state");
  state.textContent = message.speaking ? "speech" : "listening";
  state.classList.toggle("on", message.speaking);
  Pictures.levels(at("levels"), message.levels, message.peaks);
  if (message.azimuth !== live.azimuth || !live.drawn) Pictures.dial(at("dial"), live.azimuth = message.azimuth);
  live.drawn = true;
  Pictures.trace(at("trace"), live.scores, live.seconds, facts.threshold);
  say("seconds", `${message.seconds.toFixed(0)} s`);
  say("latency", message.latency === null ? "–" : `${(1000 * message.latency).toFixed(0)} ms`);
  say("load", `${(1000 * message.load).toFixed(0)} ms`);
}

function decide(decision) {
  const verdict = verdictOf(decision.genuine), final = decision.kind === "final";
  // a stream that began anew counts its seconds from zero
  if (live.scores.length && decision.at < live.scores[live.scores.length - 1].at) live.scores = [];
  if (decision.score !== null) live.scores.push({at: decision.at, score: decision.score, verdict, final});
  if (live.scores.length > 300) live.scores.shift();
  if (!final && verdict === "undecided") return;
  at("verdict").className = `card verdict ${verdict}`;
  say("verdict-words", verdict === "undecided" ? "Undecided: not accepted" : WORDS[verdict].replace("a", "A"));
  say("verdict-because", decision.sentence);
  if (!final) return;
  const row = document.createElement("tr");
  const cells = [`${decision.start.toFixed(1)}–${decision.end.toFixed(1)} s`, WORDS[verdict],
    decision.score === null ? "–" : signed(decision.score), decision.detail || decision.reasons.join(", ")];
  cells.forEach((text, i) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    if (i === 1) cell.className = verdict;
    if (i === 3) cell.className = "wide";
    row.append(cell);
  });
  at("decisions").prepend(row);
  while (at("decisions").children.length > 20) at("decisions").lastChild.remove();
  at("none").hidden = true;
}

function tell(sentence) {
  const line = document.createElement("li");
  line.textContent = sentence;
  at("notices").prepend(line);
  while (at("notices").children.length > 5) at("notices").lastChild.remove();
}

const TAKE = {
  about: message => {
    introduce(message);
    live.scores = [];
    at("decisions").replaceChildren();
    message.past.forEach(decide);
  },
  view: hear,
  decision: decide,
  notice: message => tell(message.sentence),
  ended: message => { say("state", "ended"); tell(message.detail); },
};

function connect(wait = 500) {
  const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/api/live");
  socket.onopen = () => { wait = 500; };
  socket.onmessage = event => {
    const message = JSON.parse(event.data);
    if (TAKE[message.type]) TAKE[message.type](message);
  };
  socket.onclose = () => {
    say("state", "not connected");
    setTimeout(connect, wait, Math.min(2 * wait, 10000));
  };
}

async function judge(file) {
  at("error").hidden = true;
  if (file.size > facts.max_bytes) return fail(`The file is larger than ${facts.max_bytes / 2 ** 20} MiB; cut it to the command.`);
  at("form").classList.add("busy");
  try {
    const place = "/api/analyse?array=" + encodeURIComponent(at("array").value);
    const answer = await fetch(place, {method: "POST", body: file, headers: {"content-type": "application/octet-stream"}});
    const said = await answer.json();
    if (answer.ok) show(said, file.name); else fail(said.error);
  } catch {
    fail("The recording did not arrive; is the program still running?");
  } finally {
    at("form").classList.remove("busy");
  }
}

function fail(sentence) {
  at("result").hidden = true;
  at("error").hidden = false;
  say("error", sentence);
}

function show(said, name) {
  shown = [said, name];
  at("result").hidden = false;
  at("result-verdict").className = `card verdict ${said.decision}`;
  say("result-words", said.words);
  say("result-because", said.because);
  at("scale").hidden = said.score === null;
  if (said.score !== null) Pictures.scale(at("scale"), said.score, said.threshold, said.decision);
  const list = [["File", name]];
  if (said.score !== null) list.push(["Score", signed(said.score)]);
  if (said.probability !== null) list.push(["Chance of a person, even prior", `${(100 * said.probability).toFixed(0)} %`]);
  if (said.channels) list.push(["Microphones", said.channels], ["Length", `${said.seconds.toFixed(2)} s`], ["Sample rate", `${said.sample_rate} Hz`]);
  at("facts").replaceChildren(...list.map(([what, value]) => {
    const box = document.createElement("div");
    box.append(document.createElement("dt"), document.createElement("dd"));
    box.children[0].textContent = what;
    box.children[1].textContent = value;
    return box;
  }));
  const heard = Math.min(said.seconds || 0, 31);
  at("spectrogram-box").hidden = !said.spectrogram;
  if (said.spectrogram) Pictures.spectrogram(at("spectrogram"), said.spectrogram, heard);
  at("direction-box").hidden = !said.channels;
  at("direction").hidden = !said.direction;
  if (said.direction) {
    const typical = said.direction.typical;
    say("direction-words", "Direction over time, degrees to the right" +
      (typical === null ? ": none stands out" : `: ${typical.toFixed(0)}° in the middle`));
    Pictures.direction(at("direction"), said.direction, heard);
  } else say("direction-words", "No direction: name the array that recorded it, with two microphones or more.");
  Pictures.levels(at("result-levels"), said.levels, null);
  at("cues-box").hidden = !said.cues;
  if (said.cues) say("cues-words", said.cues.words);
  at("cues").replaceChildren(...(said.cues ? said.cues.reasons : []).map(reason => {
    const line = document.createElement("li"), whom = document.createElement("span");
    line.textContent = reason.sentence + " ";
    whom.className = reason.speaks_for;
    whom.textContent = reason.speaks_for === "genuine" ? "for a person" : "for a device";
    line.append(whom);
    return line;
  }));
}

function redraw() {
  if (shown) show(...shown);
  live.drawn = false;
}

at("form").addEventListener("submit", event => event.preventDefault());
at("file").addEventListener("change", () => at("file").files.length && judge(at("file").files[0]));
at("array").addEventListener("change", () => at("file").files.length && judge(at("file").files[0]));
for (const name of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(name, event => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) {
      at("file").files = event.dataTransfer.files;
      judge(event.dataTransfer.files[0]);
    }
  });
}
window.addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

fetch("/api/about").then(answer => answer.json()).then(about => {
  introduce(about);
  if (about.live) connect();
}).catch(() => fail("This page cannot reach its program."));
