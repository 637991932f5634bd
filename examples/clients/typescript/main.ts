// The client as a command, for Node.js.
import { openAsBlob } from "node:fs";
import { writeFile } from "node:fs/promises";
import { Gateway } from "./sidegate.ts";

const usage = `usage: node main.js COMMAND, with SIDEGATE_URL and SIDEGATE_TOKEN in the environment
  upload FILE TYPE        form FILE TYPE        parts FILE TYPE [IDEMPOTENCY-KEY]
  uploads                 abort SESSION         download KEY FILE
  list [PREFIX]           delete KEY`;

const gateway = new Gateway(process.env["SIDEGATE_URL"] ?? "", async () => process.env["SIDEGATE_TOKEN"] ?? "");

async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const list: Item[] = [];
  for await (const item of items) {
    list.push(item);
  }
  return list;
}

async function run(command = "", a = "", b = "", c?: string): Promise<unknown> {
  switch (command) {
    case "upload":
      return gateway.upload(await openAsBlob(a), b);
    case "form":
      return gateway.upload(await openAsBlob(a), b, { form: true });
    case "parts":
      return gateway.uploadParts(await openAsBlob(a), b, c);
    case "uploads":
      return all(gateway.uploads());
    case "abort":
      return gateway.abort(a);
    case "download":
      return writeFile(b, (await gateway.download(a)).stream());
    case "list":
      return all(gateway.objects(a));
    case "delete":
      return gateway.delete(a);
    default:
      throw new Error(usage);
  }
}

try {
  const result = await run(...process.argv.slice(2));
  if (result !== undefined) {
    console.log(JSON.stringify(result));
  }
} catch (error) {
  console.error(`sidegate: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
