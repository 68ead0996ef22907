"""The script that a page includes: it measures with the browser's own means and reports when the page is left.

It needs no other code, sets nothing, stores nothing and knows no user. `data-route` on its element names the page
where the path does not. What it reports when the page is first hidden is final but for errors that come later.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SCRIPT"]

SCRIPT: Final = b"""\
(function () {
  "use strict";
  var script = document.currentScript;
  if (!script || !script.src || !navigator.sendBeacon) { return; }
  var url = script.src.replace(/\\.js(?:[?#].*)?$/, "");
  var route = script.getAttribute("data-route") || location.pathname;
  var hiddenAt = document.visibilityState === "hidden" ? 0 : Infinity;
  var vitals = {}, errors = 0, reported = false, flushes = [];

  function observe(type, take, options) {
    var known = window.PerformanceObserver && PerformanceObserver.supportedEntryTypes;
    if (!known || known.indexOf(type) < 0) { return false; }
    var observer = new PerformanceObserver(function (list) { list.getEntries().forEach(take); });
    observer.observe(Object.assign({ type: type, buffered: true }, options));
    flushes.push(function () { observer.takeRecords().forEach(take); });
    return true;
  }

  // A page that is opened and not looked at paints late; that is nobody's wait.
  observe("paint", function (entry) {
    if (entry.name === "first-contentful-paint" && entry.startTime < hiddenAt) {
      vitals.FCP = entry.startTime;
    }
  });
  observe("largest-contentful-paint", function (entry) {
    if (entry.startTime < hiddenAt) { vitals.LCP = entry.startTime; }
  });

  // Shifts less than a second apart, within five seconds, are one; the worst of them counts.
  var shift = 0, first = 0, last = 0;
  function takeShift(entry) {
    if (entry.hadRecentInput) { return; }
    var joins = shift && entry.startTime - last < 1000 && entry.startTime - first < 5000;
    if (!joins) { shift = 0; first = entry.startTime; }
    shift += entry.value;
    last = entry.startTime;
    vitals.CLS = Math.max(vitals.CLS || 0, shift);
  }
  if (observe("layout-shift", takeShift)) { vitals.CLS = 0; }

  // The longest interaction; of each fifty, one may be an outlier.
  var slowest = [], interactions = {}, count = 0;
  observe("event", function (entry) {
    if (!entry.interactionId) { return; }
    var known = interactions[entry.interactionId];
    if (!known) {
      known = interactions[entry.interactionId] = { duration: 0 };
      count += 1;
      slowest.push(known);
    }
    known.duration = Math.max(known.duration, entry.duration);
    slowest.sort(function (a, b) { return b.duration - a.duration; });
    slowest.length = Math.min(slowest.length, 10);
    vitals.INP = slowest[Math.min(slowest.length - 1, Math.floor(count / 50))].duration;
    if (count % 100 === 0) { interactions = {}; }
  }, { durationThreshold: 16 });

  function failed() { errors += 1; }
  addEventListener("error", function (event) { if (event.message) { failed(); } });
  addEventListener("unhandledrejection", failed);

  function report() {
    flushes.forEach(function (flush) { flush(); });
    var body = { route: route };
    if (!reported) {
      var page = performance.getEntriesByType && performance.getEntriesByType("navigation")[0];
      if (page && page.responseStart > 0) {
        vitals.TTFB = Math.max(0, page.responseStart - (page.activationStart || 0));
      }
      Object.keys(vitals).forEach(function (name) {
        body[name] = Math.round(vitals[name] * 1e4) / 1e4;
      });
      reported = true;
    }
    if (errors) { body.errors = Math.min(errors, 100); errors = 0; }
    if (Object.keys(body).length > 1) { navigator.sendBeacon(url, JSON.stringify(body)); }
  }
  addEventListener("visibilitychange", function () {
    if (document.visibilityState === "hidden") {
      hiddenAt = Math.min(hiddenAt, performance.now());
      report();
    }
  }, true);
  addEventListener("pagehide", report, true);
})();
"""
