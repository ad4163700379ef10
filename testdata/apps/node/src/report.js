const ms = require("ms");
const pluralize = require("pluralize");

// jobs: [{ name, took }], took in the words of ms ("90s", "2m").
function report(jobs) {
  const took = jobs.map((job) => ms(job.took));
  const all = took.reduce((sum, one) => sum + one, 0);
  const slowest = jobs[took.indexOf(Math.max(...took))];
  return `${pluralize("job", jobs.length, true)} in ${ms(all, { long: true })}, slowest ${slowest.name}`;
}

module.exports = { report };
