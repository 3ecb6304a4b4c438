/** Where this page can run the model, the usual place first: "browser", "server". `mlic-serve` answers with its own. */
export default ["browser"];
