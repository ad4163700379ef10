// Makes dist/ of src/: lines that are only a comment are left out, and the version is written down.
const fs = require("node:fs");
const path = require("node:path");

const root = path.join(__dirname, "..");
const src = path.join(root, "src");
const dist = path.join(root, "dist");

fs.rmSync(dist, { recursive: true, force: true });
fs.mkdirSync(dist);
for (const name of fs.readdirSync(src)) {
  const text = fs.readFileSync(path.join(src, name), "utf8");
  const kept = name.endsWith(".js") ? text.replace(/^\s*\/\/.*\n/gm, "") : text;
  fs.writeFileSync(path.join(dist, name), kept);
  console.log(`built dist/${name}`);
}
const { version } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
fs.writeFileSync(path.join(dist, "build.json"), JSON.stringify({ version }));
