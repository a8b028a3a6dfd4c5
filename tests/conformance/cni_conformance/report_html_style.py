# SPDX-License-Identifier: Apache-2.0
"""How the page of report_html looks, and the little that it does."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --page: #f7f7f5; --card: #fff; --text: #1c1d1f; --dim: #6a6d72;
  --line: #e3e3df; --pass: #2f9e67; --fail: #cf3b3b; --warn: #d9902f; --skip: #c9cac6;
  --first: 300px; --plugin: 106px }
@media (prefers-color-scheme: dark) { :root { --page: #141517; --card: #1c1e21; --text: #e8e8e6;
  --dim: #9b9ea4; --line: #2e3135; --pass: #3fb57c; --fail: #ee6a63; --warn: #e6a64f;
  --skip: #44474c; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 40px 20px 80px }
h1 { font-size: 30px; margin: 0; letter-spacing: -.02em }
h2 { font-size: 19px; margin: 44px 0 12px }
a { color: inherit }
p.lead { margin: 6px 0 0 }
p.about { color: var(--dim); font-size: 13px; margin: 4px 0 26px }
code, pre { font: 12.5px/1.5 ui-monospace, monospace }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 12px }
.card { display: flex; flex-direction: column; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px;
  overflow-wrap: anywhere }
.card span, .card code { color: var(--dim); font-size: 13px }
.card code, .card small { font-size: 12px; color: var(--dim) }
.card div { margin-top: auto }
.bar { display: flex; height: 6px; border-radius: 3px; overflow: hidden;
  background: var(--line) }
.bar i { display: block }
.counts { padding: 6px 0 8px; font-size: 14px }
.matrix { width: fit-content; max-width: 100%; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px }
.head { position: sticky; top: 0; z-index: 2; overflow: hidden; background: var(--card);
  border-bottom: 1px solid var(--line); border-radius: 10px 10px 0 0 }
.body { overflow-x: auto; overflow-y: hidden; border-radius: 0 0 10px 10px }
table { border-collapse: separate; border-spacing: 0; table-layout: fixed; font-size: 13px;
  width: calc(var(--first) + var(--plugins) * var(--plugin)) }
col.case { width: var(--first) }
th { font-weight: 600; text-align: left; padding: 6px 10px; background: var(--card);
  overflow-wrap: anywhere; vertical-align: bottom }
th:first-child { position: sticky; left: 0; z-index: 1; border-right: 1px solid var(--line) }
tbody th { font-weight: 400 }
tbody th small { color: var(--dim) }
.body th, td { border-top: 1px solid var(--line) }
.body tr:first-child > * { border-top: 0 }
.body tr:hover > * { background: var(--page) }
td { padding: 4px 10px; vertical-align: middle }
.cells { display: flex; gap: 2px; width: 82px }
.cells a, .cells i { width: 10px; height: 18px; border-radius: 2px; background: transparent }
.cells span { width: 10px; writing-mode: vertical-rl; transform: rotate(180deg);
  font: 10px/10px ui-monospace, monospace; color: var(--dim); margin-top: 4px }
.pass { background: var(--pass) !important }
.required, .error { background: var(--fail) !important }
.recommended { background: var(--warn) !important } .skip { background: var(--skip) !important }
.unreached { background: repeating-linear-gradient(45deg, var(--skip) 0 3px, var(--fail) 3px 4px)
  !important }
.legend { display: flex; gap: 6px 18px; flex-wrap: wrap; color: var(--dim); font-size: 13px;
  margin: 10px 2px }
.legend i { display: inline-block; width: 10px; height: 14px; border-radius: 2px;
  margin-right: 6px; vertical-align: -2px }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  margin: 8px 0; padding: 10px 14px; overflow-wrap: anywhere; scroll-margin-top: 8px }
details:target, details:has(:target) { outline: 2px solid var(--warn) }
summary span { scroll-margin-top: 20px }
summary { cursor: pointer } summary em { color: var(--dim); font-style: normal }
dl { display: grid; grid-template-columns: 84px minmax(0, 1fr); gap: 6px 12px;
  margin: 12px 0 4px }
dt { color: var(--dim) } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap }
pre { background: var(--page); border-radius: 6px; padding: 10px; margin: 6px 0;
  white-space: pre-wrap; overflow-wrap: anywhere }
.tag { color: #fff; border-radius: 4px; padding: 1px 6px; font-size: 12px; margin-right: 6px }
@media (max-width: 640px) { :root { --first: 156px } main { padding: 24px 12px 60px } }
"""

#: Opens the finding that a link goes to; the head of the matrix goes sideways with its body.
SCRIPT = """
addEventListener('hashchange', show); show();
function show() {
  const id = decodeURIComponent(location.hash.slice(1));
  const found = id && document.getElementById(id);
  const details = found && found.closest('details');
  if (details) { details.open = true; details.scrollIntoView(); }
}
const head = document.querySelector('.head'), body = document.querySelector('.body');
body.addEventListener('scroll', () => { head.scrollLeft = body.scrollLeft; });
"""
