/** What is wrong with a model package; its message is one line. */
export class PackageError extends Error {
  name = "PackageError";
}

/** What is wrong with a picture, a caption or an option; its message is one line. */
export class InputError extends Error {
  name = "InputError";
}

/** Return the first line of what an error says, for a message of one line. */
export function reason(error) {
  return String(error?.message ?? error).trim().split("\n")[0];
}
