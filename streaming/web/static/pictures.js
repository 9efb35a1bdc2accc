"use strict";
// Everything that is drawn. Colours come from the style sheet, so that light and dark are one drawing.

const Pictures = (() => {
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  // A canvas in CSS pixels, sharp on any screen: [context, width, height].
  function sheet(canvas) {
    const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.font = "12px system-ui, sans-serif";
    pen.fillStyle = pen.strokeStyle = colour("soft");
    return [pen, box.width, box.height];
  }

  function bytes(text) {
    return Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  }

  // From dark blue over purple and orange to pale yellow: brightness rises evenly.
  const STOPS = [[8, 8, 32], [70, 20, 110], [165, 45, 105], [235, 105, 50], [250, 190, 60], [252, 250, 200]];
  function heat(level) {
    const place = level / 255 * (STOPS.length - 1), low = Math.min(Math.floor(place), STOPS.length - 2);
    return STOPS[low].map((value, i) => value + (STOPS[low + 1][i] - value) * (place - low));
  }

  // A picture of bytes inside the axes; `rows` and `columns` are [place 0..1, words].
  function picture(canvas, image, rows, columns, mark) {
    const [pen, width, height] = sheet(canvas), left = 46, bottom = 20;
    const inner = document.createElement("canvas");
    inner.width = image.width;
    inner.height = image.height;
    const dots = inner.getContext("2d"), data = dots.createImageData(image.width, image.height);
    bytes(image.pixels).forEach((level, i) => data.data.set([...heat(level), 255], 4 * i));
    dots.putImageData(data, 0, 0);
    const wide = width - left, high = height - bottom - 6;
    pen.drawImage(inner, left, 6, wide, high);
    pen.textAlign = "right";
    for (const [place, words] of rows) pen.fillText(words, left - 6, 10 + place * high);
    for (const [place, words] of columns) {
      pen.textAlign = place > 0.95 ? "right" : place < 0.05 ? "left" : "center";
      pen.fillText(words, left + place * wide, height - 5);
    }
    if (mark) mark(pen, place => left + place * wide, place => 6 + place * high);
  }

  function seconds(total) {
    const step = [0.5, 1, 2, 5, 10].find(one => total / one <= 8) || 10, ticks = [];
    for (let t = 0; t <= total; t += step) ticks.push([t / total, t + (t + step > total ? " s" : "")]);
    return ticks;
  }

  function spectrogram(canvas, image, total) {
    picture(canvas, image, [[0, "8 kHz"], [0.5, "4"], [1, "0"]], seconds(total));
  }

  function direction(canvas, image, total) {
    picture(canvas, image, [[0, "90°"], [0.5, "0°"], [1, "-90°"]], seconds(total), (pen, x, y) => {
      pen.fillStyle = "#fff";
      pen.strokeStyle = "#000";
      image.best.forEach((angle, i) => {
        if (angle === null) return;
        pen.beginPath();
        pen.arc(x(image.times[i] / total), y((90 - angle) / 180), 3, 0, 7);
        pen.fill();
        pen.stroke();
      });
    });
  }

  // Bars from -90 to 0 dB of full scale; the thin line is the peak.
  function levels(box, values, peaks) {
    while (box.children.length > values.length) box.lastChild.remove();
    while (box.children.length < values.length) {
      const line = document.createElement("div");
      line.className = "level";
      for (const kind of ["span", "div", "span"]) line.append(document.createElement(kind));
      line.children[1].append(document.createElement("i"), document.createElement("b"));
      box.append(line);
    }
    const place = value => Math.max(0, Math.min(100, (value + 90) / 90 * 100)) + "%";
    values.forEach((value, i) => {
      const line = box.children[i], [bar, peak] = line.children[1].children;
      line.children[0].textContent = i + 1;
      line.children[2].textContent = value <= -119 ? "none" : value.toFixed(0) + " dB";
      bar.style.width = place(value);
      peak.style.left = place(peaks ? peaks[i] : value);
      peak.hidden = !peaks;
      line.classList.toggle("hot", Boolean(peaks) && peaks[i] > -0.1);
    });
  }

  function dial(canvas, azimuth) {
    const [pen, width, height] = sheet(canvas), x = width / 2, y = height - 22, radius = Math.min(x - 40, y - 18);
    pen.strokeStyle = colour("line");
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, radius, Math.PI, 2 * Math.PI);
    pen.stroke();
    pen.textAlign = "center";
    for (const angle of [-90, -45, 0, 45, 90]) {
      const turn = angle * Math.PI / 180;
      pen.fillText(angle + "°", x + (radius + 16) * Math.sin(turn), y - (radius + 12) * Math.cos(turn) + 4);
    }
    pen.fillText(azimuth === null ? "not known" : azimuth.toFixed(0) + "°, " +
      (Math.abs(azimuth) < 5 ? "in front" : azimuth > 0 ? "to the right" : "to the left"), x, height - 3);
    if (azimuth === null) return;
    const turn = azimuth * Math.PI / 180;
    pen.strokeStyle = pen.fillStyle = colour("genuine");
    pen.lineWidth = 4;
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(x + radius * Math.sin(turn), y - radius * Math.cos(turn));
    pen.stroke();
    pen.beginPath();
    pen.arc(x + radius * Math.sin(turn), y - radius * Math.cos(turn), 7, 0, 7);
    pen.fill();
  }

  // Scores as dots over the last `span` seconds; hollow while a command grew.
  function trace(canvas, scores, now, threshold, span = 60) {
    const [pen, width, height] = sheet(canvas), left = 34, bottom = 20;
    const shown = scores.filter(one => one.at >= now - span);
    const values = [...shown.map(one => one.score), threshold ?? 0];
    const low = Math.min(-4, ...values) - 0.5, high = Math.max(4, ...values) + 0.5;
    const x = at => left + (width - left - 8) * (1 - (now - at) / span);
    const y = score => 6 + (height - bottom - 8) * (high - score) / (high - low);
    pen.textAlign = "right";
    for (const score of [Math.ceil(low), 0, Math.floor(high)]) pen.fillText(score, left - 6, y(score) + 4);
    pen.textAlign = "left";
    pen.fillText("-" + span + " s", left, height - 5);
    pen.textAlign = "right";
    pen.fillText("now", width - 8, height - 5);
    pen.strokeStyle = colour("line");
    pen.strokeRect(left, 6, width - left - 8, height - bottom - 8);
    if (threshold !== null && threshold !== undefined) {
      pen.strokeStyle = colour("ink");
      pen.setLineDash([5, 4]);
      pen.beginPath();
      pen.moveTo(left, y(threshold));
      pen.lineTo(width - 8, y(threshold));
      pen.stroke();
      pen.setLineDash([]);
    }
    for (const one of shown) {
      pen.fillStyle = pen.strokeStyle = colour(one.verdict);
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(x(one.at), y(one.score), one.final ? 6 : 3.5, 0, 7);
      if (one.final) pen.fill(); else pen.stroke();
    }
  }

  // One score on a line, with the threshold.
  function scale(canvas, score, threshold, verdict) {
    const [pen, width] = sheet(canvas), reach = Math.max(6, Math.abs(score), Math.abs(threshold ?? 0)) + 1;
    const x = value => 10 + (width - 20) * (value + reach) / (2 * reach);
    pen.fillStyle = colour("bar");
    pen.fillRect(10, 22, width - 20, 10);
    pen.fillStyle = colour("soft");
    pen.textAlign = "left";
    pen.fillText("playback device", 10, 52);
    pen.textAlign = "right";
    pen.fillText("living person", width - 10, 52);
    if (threshold !== null) {
      pen.fillStyle = colour("ink");
      pen.fillRect(x(threshold) - 1, 16, 2, 22);
      pen.textAlign = "center";
      pen.fillText("threshold", Math.min(Math.max(x(threshold), 40), width - 40), 11);
    }
    pen.fillStyle = colour(verdict);
    pen.beginPath();
    pen.arc(x(score), 27, 8, 0, 7);
    pen.fill();
  }

  return {spectrogram, direction, levels, dial, trace, scale};
})();
