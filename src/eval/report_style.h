#pragma once
// The style sheet of reports.

namespace minwm::eval {

inline constexpr const char* kReportStyle = R"css(
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1c2330;--soft:#5a6474;--line:#dfe3ea;--mark:#eaf3fb;
--good:#00694d;--good-page:#e3f4ee;--bad:#a04000;--bad-page:#fcefe4;--accent:#0072B2}
@media (prefers-color-scheme:dark){:root{--page:#12161d;--card:#1a202a;--ink:#e6e9ef;--soft:#a3adbd;--line:#323b49;
--mark:#1d2f40;--good:#4fd1a5;--good-page:#16302a;--bad:#f2a36b;--bad-page:#38261a;--accent:#67b7e8;
--series-0:#67b7e8;--series-1:#f08c4a;--series-2:#3fc79a;--series-3:#e0a3c6;--series-4:#f0b84a;--series-5:#9ad0f5}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
header,main{max-width:1120px;margin:auto;padding:0 20px}
header{padding-top:36px}
h1{font-size:clamp(1.6rem,4vw,2.2rem);line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
header>p{color:var(--soft);margin:0 0 14px}
nav{display:flex;flex-wrap:wrap;gap:6px 18px;border-bottom:1px solid var(--line);padding-bottom:12px}
nav a{color:var(--accent);text-decoration:none}nav a:hover{text-decoration:underline}
section{margin:34px 0}
h2{font-size:1.3rem;margin:0 0 8px}h3{font-size:1.02rem;margin:0}
p{margin:0 0 12px;max-width:78ch}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(45%,190px),1fr));gap:12px;margin:16px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:13px 15px;display:flex;
flex-direction:column}
.tile b{font-weight:600;font-size:.86rem;color:var(--soft)}
.tile .value{font-size:1.75rem;font-weight:650;line-height:1.3;font-variant-numeric:tabular-nums}
.tile small{color:var(--soft);font-size:.8rem;line-height:1.35}
.tile.good{border-color:var(--good)}.tile.good small{color:var(--good)}
.tile.bad{border-color:var(--bad)}.tile.bad small{color:var(--bad)}
.scroll{overflow-x:auto;margin:14px 0}
table{border-collapse:collapse;background:var(--card);border:1px solid var(--line);font-size:.9rem;min-width:100%;
font-variant-numeric:tabular-nums}
th,td{padding:7px 11px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;color:var(--soft);font-size:.82rem}th[title]{cursor:help;text-decoration:underline dotted;
text-underline-offset:3px}
th:first-child,td:first-child{text-align:left;white-space:normal;min-width:170px;position:sticky;left:0;
background:var(--card)}
td small{display:block;color:var(--soft);font-size:.76rem;line-height:1.3}
tr.mark td{background:var(--mark);font-weight:600}tr.mark td small{font-weight:400}
td.good{color:var(--good)}td.bad{color:var(--bad)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:16px;margin:16px 0}
figure{margin:0}.figures figure{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px}
figcaption{color:var(--soft);font-size:.85rem;margin-top:4px}
svg.plot{width:100%;height:auto;display:block}
.sheet{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px;margin:16px 0}
.sheet>p{color:var(--soft);font-size:.88rem;margin:2px 0 10px}
.players{display:flex;flex-wrap:wrap;gap:14px}
.player{flex:1 1 0;min-width:90px;max-width:250px}.player i{display:block;width:100%;border-radius:8px;image-rendering:pixelated;
animation:play 3s infinite}.player figcaption{text-align:center}
@keyframes play{from{background-position:0 0}to{background-position:100% 0}}
@media (prefers-reduced-motion:reduce){.player i{animation:none}}
.strips{display:grid;grid-template-columns:auto minmax(720px,1fr);gap:3px 10px;align-items:center;font-size:.82rem;
color:var(--soft)}
.strips>span{max-width:110px;line-height:1.25}.strips img{width:100%;display:block;image-rendering:pixelated;border-radius:4px}
.keys{display:flex}.keys span{flex:1 1 0;text-align:center;font-weight:600;color:var(--ink)}
.keys .given{color:var(--soft);font-weight:400}
dl{display:grid;grid-template-columns:minmax(120px,max-content) 1fr;gap:8px 20px;margin:0}
dt{font-weight:600}dd{margin:0;max-width:80ch}
@media (max-width:640px){dl{grid-template-columns:1fr;gap:2px}dd{margin-bottom:10px}.players{gap:8px}}
ul{padding-left:22px;max-width:82ch}li{margin:5px 0}
details{margin:12px 0}summary{cursor:pointer;color:var(--accent)}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;overflow-x:auto;font-size:.8rem}
@media print{body{background:#fff}nav{display:none}.tile,.sheet,.figures figure{break-inside:avoid}}
)css";

}  // namespace minwm::eval
