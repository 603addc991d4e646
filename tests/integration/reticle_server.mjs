// Starts the real program on free ports for a test, and reads its metrics.
import { spawn } from 'node:child_process';
import { once } from 'node:events';

const binary = process.env.RETICLE ?? 'build/release/reticle';

export class Server {
  // Resolves when /health/ready answers 200.
  static async start(args = []) {
    const server = new Server();
    server.log = '';
    server.process = spawn(binary, ['serve', '--http', '127.0.0.1:0', '--grpc', '127.0.0.1:0', ...args],
      { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const pipe of [server.process.stdout, server.process.stderr]) {
      pipe.setEncoding('utf8').on('data', (text) => { server.log += text; });
    }
    server.exited = once(server.process, 'exit');
    const port = async (pattern) => {
      let found;
      await until(() => {
        if (server.process.exitCode !== null) throw new Error(`reticle ended early:\n${server.log}`);
        found = server.log.match(pattern);
        return found;
      }, () => `no ${pattern} in what reticle printed:\n${server.log}`);
      return found[1];
    };
    server.url = `http://127.0.0.1:${await port(/http:\/\/127\.0\.0\.1:(\d+)/)}`;
    server.grpcAddress = `127.0.0.1:${await port(/grpc:?\s+(?:grpc:\/\/)?127\.0\.0\.1:(\d+)/i)}`;
    await until(async () => (await fetch(`${server.url}/health/ready`)).status === 200, () => `never ready:\n${server.log}`);
    return server;
  }

  // Returns the exit status.
  async stop(signal = 'SIGTERM') {
    if (this.process.exitCode === null) this.process.kill(signal);
    const [status] = await this.exited;
    return status;
  }
}

// Waits until `condition()` holds; fails with `what` after 20 s.
export async function until(condition, what) {
  const deadline = Date.now() + 20000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(typeof what === 'function' ? what() : what);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

// The sum over the series of `name` whose labels include `labels`.
export async function metric(server, name, labels = {}) {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  let sum = 0;
  for (const line of text.split('\n')) {
    if (!line.startsWith(`${name}{`) && !line.startsWith(`${name} `)) continue;
    if (Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`))) sum += Number(line.slice(line.lastIndexOf(' ')));
  }
  return sum;
}
