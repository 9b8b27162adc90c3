// Opens report.html in headless Chromium: `node report.mjs REPORT.html [FOLDER]`; screenshots go into the folder.
//
// Fails on any error on the console, any request to anywhere, a chart that is not there, or a control that does nothing.

import assert from "node:assert/strict";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [report, folder] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});

async function open(options) {
  const page = await browser.newPage(options);
  const wrong = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) wrong.push(message.text()); });
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => { if (!/^(file|data):/.test(request.url())) wrong.push(`asks for ${request.url()}`); });
  await page.goto(pathToFileURL(resolve(report)).href);
  return { page, wrong };
}

async function look(page, name) {
  if (folder) await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
}

try {
  const { page, wrong } = await open({ viewport: { width: 1240, height: 900 }, colorScheme: "light" });
  const charts = await page.locator("figure[data-chart]").evaluateAll((figures) =>
    figures.map((figure) => [figure.dataset.chart, figure.querySelectorAll("svg path, svg rect").length, figure.innerText]));
  assert.equal(charts.length, 9);
  for (const [name, marks, text] of charts) assert.ok(marks > 0, `${name} is empty: ${text}`);
  assert.match(await page.locator("#verdict .headline").innerText(), /E2E P99/);

  // A policy can be hidden, and is there again when it is asked for again.
  const names = await page.locator("#policies button").allInnerTexts();
  const curves = () => page.locator('figure[data-chart="e2e_cdf"] path.curve').count();
  assert.equal(await curves(), names.length);
  const first = page.locator("#policies button").first();
  await first.click();
  assert.equal(await first.getAttribute("aria-pressed"), "false");
  assert.equal(await curves(), names.length - 1);
  await first.click();
  assert.equal(await curves(), names.length);
  for (const button of await page.locator("#policies button").all()) await button.click();
  assert.equal(await curves(), 0);
  for (const button of await page.locator("#policies button").all()) await button.click();
  assert.equal(await curves(), names.length);

  // Figures are told where the pointer is.
  const chart = page.locator('figure[data-chart="ttft_cdf"] svg');
  await chart.scrollIntoViewIfNeeded();
  await chart.hover();
  assert.match(await page.locator("#tip").innerText(), /within .* (ms|s)/);
  await page.mouse.move(1, 1);
  assert.ok(await page.locator("#tip").isHidden());

  // The heat map shows what is chosen.
  const caption = page.locator('figure[data-chart="heat"] figcaption');
  assert.match(await caption.innerText(), /running/);
  await page.locator("#heat-choices button", { hasText: "KV cache" }).click();
  assert.match(await caption.innerText(), /KV cache/);
  await page.locator("#heat-choices button").nth(names.length - 1).click();
  assert.ok((await caption.innerText()).startsWith(names[names.length - 1]));
  await look(page, "light");
  assert.deepEqual(wrong, []);

  const dark = await open({ viewport: { width: 1240, height: 900 }, colorScheme: "dark" });
  const brightness = await dark.page.evaluate(() =>
    getComputedStyle(document.body).backgroundColor.match(/\d+/g).slice(0, 3).map(Number));
  assert.ok(Math.max(...brightness) < 64, `dark paper is ${brightness}`);
  await look(dark.page, "dark");
  assert.deepEqual(dark.wrong, []);

  // Nothing stands out at the side of a narrow screen, and paper has no controls.
  const narrow = await open({ viewport: { width: 400, height: 800 } });
  const beyond = await narrow.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(beyond <= 0, `${beyond} pixels too wide`);
  await look(narrow.page, "narrow");
  assert.deepEqual(narrow.wrong, []);
  await page.emulateMedia({ media: "print" });
  assert.ok(await page.locator("nav").isHidden());
  assert.ok(await page.locator("#figures table").first().isVisible());
  if (folder) await page.pdf({ path: `${folder}/paper.pdf`, printBackground: true });

  // Without scripts the tables are there.
  const plain = await open({ javaScriptEnabled: false });
  assert.ok(await plain.page.locator("#figures table").first().isVisible());
  assert.ok(await plain.page.locator("noscript").isVisible());
  console.log(`${report}: ${charts.length} charts, ${names.length} policies, no error`);
} finally {
  await browser.close();
}
