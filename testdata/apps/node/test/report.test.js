const test = require("node:test");
const assert = require("node:assert");
const { report } = require("../src/report");

test("one job is not plural", () => {
  assert.strictEqual(report([{ name: "resize", took: "60s" }]), "1 job in 1 minute, slowest resize");
});
