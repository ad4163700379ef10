// Reads the jobs and prints one line about them.
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { report } = require("./report");

const { version } = require("./build.json");

if (process.argv[2] === "--health") {
  process.exit(0);
}

const jobs = JSON.parse(readFileSync(join(__dirname, "jobs.json"), "utf8"));
console.log(`queue-report ${version} (${process.env.NODE_ENV}): ${report(jobs)}`);
