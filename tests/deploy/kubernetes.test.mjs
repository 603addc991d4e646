// The overlays of deploy/kubernetes: what kustomize makes of them, against the published schemas, against each other,
// and against the server. Run by ctest (deploy_kubernetes) with RETICLE set.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, "../..");
const npm = path.join(root, "tests/npm");
const require = createRequire(path.join(npm, "package.json"));
const YAML = require("yaml");
const ts = require("typescript");
const Ajv = require("ajv/dist/2020").default;

const overlays = ["single", "production", "gateway"];
const packages = {
  "gateway.networking.k8s.io/v1": "@kubernetes-models/gateway-api/",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/",
};
const inferencePool = new Ajv({ strict: false, allErrors: true })
  .compile(JSON.parse(readFileSync(path.join(here, "inferencepool.schema.json"), "utf8")));

const built = new Map();
function build(overlay) {
  if (!built.has(overlay)) {
    const folder = path.join(root, "deploy/kubernetes/overlays", overlay);
    const text = execFileSync("kubectl", ["kustomize", folder],
      { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    built.set(overlay, YAML.parseAllDocuments(text).map((document) => {
      assert.deepEqual(document.errors, []);
      return document.toJS();
    }));
  }
  return structuredClone(built.get(overlay));
}

const find = (objects, kind, name = "reticle") =>
  objects.find((object) => object.kind === kind && object.metadata.name === name);
const isPool = (object) => object.kind === "InferencePool";
const moduleOf = (object) =>
  `${packages[object.apiVersion] ?? "kubernetes-models/"}${object.apiVersion}/${object.kind}`;
const contains = (labels, selector) =>
  Object.entries(selector).every(([name, value]) => labels[name] === value);

// What the schema says of types, required fields, enumerations and patterns.
async function schemaErrors(object) {
  if (isPool(object)) {
    return inferencePool(object) ? [] : inferencePool.errors.map((e) => `${e.instancePath} ${e.message}`);
  }
  const loaded = await import(pathToFileURL(path.join(npm, "node_modules", `${moduleOf(object)}.js`)));
  try {
    new loaded[object.kind](object).validate();
    return [];
  } catch (error) {
    return [error.message];
  }
}

// Fields that the schema does not know: an object literal of the generated type may have none.
function unknownFields(objects) {
  const typed = objects.filter((object) => !isPool(object));
  const source = typed.map((object, i) =>
    `import type { I${object.kind} as T${i} } from "${moduleOf(object)}";\n` +
    `export const object${i}: T${i} = ${JSON.stringify(object, null, 1)};`).join("\n");
  const file = path.join(npm, "deploy-objects.ts");
  const options = {
    noEmit: true, strict: true, skipLibCheck: true, types: [], lib: ["lib.es2022.d.ts"],
    module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.getSourceFile = (name, ...rest) => name === file
    ? ts.createSourceFile(name, source, ts.ScriptTarget.ES2022) : getSourceFile.call(host, name, ...rest);
  host.fileExists = (name) => name === file || fileExists.call(host, name);
  host.readFile = (name) => name === file ? source : readFile.call(host, name);
  const program = ts.createProgram([file], options, host);
  return ts.getPreEmitDiagnostics(program)
    .map((diagnostic) => ts.flattenDiagnosticMessageText(diagnostic.messageText, "\n"));
}

const configOf = (objects) => {
  const deployment = find(objects, "Deployment");
  const volume = deployment.spec.template.spec.volumes.find((v) => v.name === "config");
  return find(objects, "ConfigMap", volume.configMap.name);
};

for (const overlay of overlays) {
  test(`${overlay}: every object agrees with its published schema`, async () => {
    for (const object of build(overlay)) {
      assert.deepEqual(await schemaErrors(object), [], `${object.kind} ${object.metadata.name}`);
    }
    assert.deepEqual(unknownFields(build(overlay)), []);
  });

  test(`${overlay}: what refers to something refers to what is there`, () => {
    const objects = build(overlay);
    const deployment = find(objects, "Deployment");
    const pod = deployment.spec.template;
    const container = pod.spec.containers[0];
    const labels = pod.metadata.labels;
    const service = find(objects, "Service");
    assert.ok(contains(labels, deployment.spec.selector.matchLabels));
    assert.ok(contains(labels, service.spec.selector));
    for (const port of service.spec.ports) {
      assert.ok(container.ports.some((p) => p.name === port.targetPort), port.name);
    }
    for (const probe of ["startupProbe", "readinessProbe", "livenessProbe"]) {
      assert.ok(container.ports.some((p) => p.name === container[probe].httpGet.port), probe);
    }
    assert.ok(contains(labels, find(objects, "PodDisruptionBudget").spec.selector.matchLabels));
    assert.ok(configOf(objects).data["reticle.toml"].includes("[http]"));
    assert.ok(find(objects, "ServiceAccount", pod.spec.serviceAccountName));
    const volumes = new Set(pod.spec.volumes.map((v) => v.name));
    for (const one of [container, ...(pod.spec.initContainers ?? [])]) {
      for (const mount of one.volumeMounts) assert.ok(volumes.has(mount.name), mount.name);
    }
    for (const spread of pod.spec.topologySpreadConstraints) {
      assert.ok(contains(labels, spread.labelSelector.matchLabels));
    }
    for (const object of objects) {
      if (object.kind !== "Namespace") assert.equal(object.metadata.namespace, "reticle", object.kind);
    }
  });

  test(`${overlay}: pods are hardened and drain in time`, () => {
    const objects = build(overlay);
    const pod = find(objects, "Deployment").spec.template.spec;
    assert.equal(pod.securityContext.runAsNonRoot, true);
    assert.equal(pod.securityContext.seccompProfile.type, "RuntimeDefault");
    assert.equal(pod.automountServiceAccountToken, false);
    for (const container of [...pod.containers, ...(pod.initContainers ?? [])]) {
      assert.equal(container.securityContext.readOnlyRootFilesystem, true);
      assert.equal(container.securityContext.allowPrivilegeEscalation, false);
      assert.deepEqual(container.securityContext.capabilities.drop, ["ALL"]);
      assert.ok(container.resources.requests.memory && container.resources.limits.memory);
      assert.match(container.image, /:[^:]+$/);
      assert.doesNotMatch(container.image, /:latest$/);
    }
    const config = configOf(objects).data["reticle.toml"];
    const hook = pod.containers[0].lifecycle.preStop.exec.command;
    assert.deepEqual(hook.slice(0, 3), ["reticle", "drain", "--admin"]);
    assert.ok(config.includes(`[admin]\nlisten = "${hook[3]}"`), hook[3]);
    const preStop = Number(hook[hook.indexOf("--delay-ms") + 1]) / 1000;
    const drain = Number(/drain_timeout_s = (\d+)/.exec(config)[1]);
    assert.ok(pod.terminationGracePeriodSeconds >= preStop + drain + 5);
    assert.ok(objects.every((object) => object.kind !== "Secret"), "secrets do not belong here");
  });
}

test("the checks refuse what is wrong", async () => {
  const wrong = (change) => {
    const objects = build("gateway");
    change(objects);
    return objects;
  };
  const misspelt = wrong((o) => { find(o, "Deployment").spec.template.spec.containers[0].volumeMount = []; });
  assert.match(unknownFields(misspelt).join(), /volumeMount/);
  const pool = find(wrong((o) => { delete find(o, "InferencePool").spec.endpointPickerRef.port; }), "InferencePool");
  assert.match((await schemaErrors(pool)).join(), /port/);
  const old = find(wrong((o) => { find(o, "InferencePool").spec.targetPortNumber = 8080; }), "InferencePool");
  assert.notDeepEqual(await schemaErrors(old), []);
  const route = find(wrong((o) => { find(o, "HTTPRoute").spec.rules[0].timeouts.request = "ten"; }), "HTTPRoute");
  assert.notDeepEqual(await schemaErrors(route), []);
  const budget = find(wrong((o) => { find(o, "PodDisruptionBudget").spec.unhealthyPodEvictionPolicy = "Never"; }),
    "PodDisruptionBudget");
  assert.notDeepEqual(await schemaErrors(budget), []);
  const monitor = find(wrong((o) => { delete find(o, "ServiceMonitor").spec.endpoints; }), "ServiceMonitor");
  assert.notDeepEqual(await schemaErrors(monitor), []);
});

test("the autoscaler, the monitor, the pool and the route point at the server", () => {
  const objects = build("gateway");
  const deployment = find(objects, "Deployment");
  const service = find(objects, "Service");
  const labels = deployment.spec.template.metadata.labels;
  const target = find(objects, "HorizontalPodAutoscaler").spec.scaleTargetRef;
  assert.deepEqual([target.kind, target.name], ["Deployment", deployment.metadata.name]);
  const monitor = find(objects, "ServiceMonitor").spec;
  assert.ok(contains(service.metadata.labels, monitor.selector.matchLabels));
  assert.ok(service.spec.ports.some((p) => p.name === monitor.endpoints[0].port));
  const pool = find(objects, "InferencePool");
  assert.ok(contains(labels, pool.spec.selector.matchLabels));
  const ports = deployment.spec.template.spec.containers[0].ports.map((p) => p.containerPort);
  assert.ok(pool.spec.targetPorts.every((p) => ports.includes(p.number)));
  for (const rule of find(objects, "HTTPRoute").spec.rules) {
    for (const backend of rule.backendRefs) {
      const referred = find(objects, backend.kind ?? "Service", backend.name);
      assert.ok(referred, `${backend.kind ?? "Service"} ${backend.name}`);
      if (backend.group) assert.ok(referred.apiVersion.startsWith(`${backend.group}/`));
      if (!backend.kind) assert.ok(referred.spec.ports.some((p) => p.port === backend.port));
    }
  }
});

// Starts the server with `config`, on a free port and without what only the cluster has, and returns its metrics.
async function serve(config, folder) {
  const file = path.join(folder, "reticle.toml");
  writeFileSync(file, config);
  const server = spawn(process.env.RETICLE, ["serve", "--config", file, "--http", "127.0.0.1:0", "--grpc", "none",
    "--admin", "none", "--tenants-store", path.join(folder, "tenants.db"),
    "--tenants-secret", path.join(folder, "digest.secret")], { stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  server.stderr.on("data", (data) => { log += data; });
  try {
    const address = await new Promise((resolve, reject) => {
      server.stdout.on("data", (data) => {
        log += data;
        const found = /HTTP +(http:\S+)/.exec(log);
        if (found && log.includes("Model ")) resolve(found[1]);
      });
      server.on("exit", () => reject(new Error(log)));
    });
    assert.equal((await fetch(`${address}/health/live`)).status, 200);
    return await (await fetch(`${address}/metrics`)).text();
  } finally {
    server.removeAllListeners("exit");
    server.kill("SIGKILL");
  }
}

test("the server takes every configuration, and has the metrics that scale it", { timeout: 120_000 }, async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "reticle-deploy-"));
  try {
    for (const overlay of ["single", "production"]) {
      const metrics = await serve(configOf(build(overlay)).data["reticle.toml"], folder);
      for (const metric of find(build("production"), "HorizontalPodAutoscaler").spec.metrics) {
        assert.match(metrics, new RegExp(`^${metric.pods.metric.name}\\{`, "m"));
      }
    }
    const base = readFileSync(path.join(root, "deploy/kubernetes/base/reticle.toml"), "utf8");
    await serve(base, folder);
    await serve(readFileSync(path.join(root, "deploy/compose/reticle.toml"), "utf8"), folder);
    await assert.rejects(serve(`${base}\n[server.typo]\nx = 1\n`, folder));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
