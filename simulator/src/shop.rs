//! The built-in application: a web shop of twelve services, a database and a cache.
//!
//! ```text
//! user → frontend → gateway ─┬→ users → cache
//!                            ├→ catalog → cache, database
//!                            ├→ cart ─┬→ inventory → database
//!                            │        ├→ pricing → cache
//!                            │        └→ cache
//!                            ├→ checkout → cart, (inventory ‖ pricing), payment, orders, (shipping ‖ email)
//!                            ├→ orders → database
//!                            └→ shipping → database
//! ```
//!
//! In health it is boring on purpose: no call ever fails, every line and every branch comes up many times a minute, and
//! calls made at the same time differ so much in length that their lines keep their order. Whatever is new is a fault.

use crate::config::{
    Background, Call, Config, Line, OnFailure, Operation, RequestKind, Service, ServiceTime, Speech, Step,
};

/// Requests per second of [`config`].
pub const ARRIVALS_PER_SECOND: f64 = 20.0;

/// The shop at 20 requests a second, everything spoken.
#[must_use]
pub fn config() -> Config {
    Config {
        services: services(),
        requests: vec![
            request("browse", 40.0, "GET /products"),
            request("search", 20.0, "GET /search"),
            request("add to cart", 20.0, "POST /cart"),
            request("checkout", 12.0, "POST /checkout"),
            request("track order", 8.0, "GET /orders/{id}"),
        ],
        arrivals_per_second: ARRIVALS_PER_SECOND,
        network_ms: 0.25,
        retry_pause_ms: 25.0,
        max_visits: 20_000,
        speech: Speech::Full,
    }
}

fn services() -> Vec<Service> {
    let verify = || call(&[to("users", "POST /sessions/verify", 1_000.0)]);
    let services = vec![
        ("frontend", 8, frontend()),
        (
            "gateway",
            8,
            vec![
                gateway("GET /api/products", verify(), to("catalog", "GET /catalog", 1_000.0)),
                gateway("GET /api/search", verify(), to("catalog", "GET /catalog/search", 1_000.0)),
                gateway("POST /api/cart", verify(), to("cart", "POST /items", 2_500.0)),
                gateway("POST /api/checkout", verify(), to("checkout", "POST /checkouts", 6_000.0)),
                Operation {
                    name: "GET /api/orders/{id}".into(),
                    steps: vec![
                        work(1.2),
                        verify(),
                        call(&[to("orders", "GET /orders/{id}", 1_000.0)]),
                        call(&[to("shipping", "GET /shipments/{id}", 1_000.0)]),
                        info("routed GET /api/orders for {user} in {ms} ms"),
                    ],
                },
            ],
        ),
        (
            "users",
            4,
            vec![operation(
                "POST /sessions/verify",
                vec![
                    work(1.5),
                    call(&[to("cache", "GET session", 400.0)]),
                    info("session of {user} verified from {ip}"),
                ],
            )],
        ),
        (
            "catalog",
            4,
            vec![
                operation(
                    "GET /catalog",
                    vec![
                        work(2.0),
                        call(&[to("cache", "GET page", 400.0)]),
                        call(&[Call { probability: 0.25, ..to("database", "SELECT products", 400.0) }]),
                        work(1.0),
                        info("catalog page with {n} products built in {ms} ms"),
                    ],
                ),
                operation(
                    "GET /catalog/search",
                    vec![
                        work(4.0),
                        call(&[to("database", "SELECT products", 400.0)]),
                        info("search returned {n} hits in {ms} ms for {query}"),
                    ],
                ),
            ],
        ),
        (
            "pricing",
            4,
            vec![operation(
                "POST /quotes",
                vec![work(0.6), call(&[to("cache", "GET prices", 400.0)]), info("quoted {amount} EUR for {sku}")],
            )],
        ),
        (
            "inventory",
            4,
            vec![
                operation(
                    "GET /stock",
                    vec![
                        work(8.0),
                        call(&[to("database", "SELECT stock", 400.0)]),
                        info("stock of {sku} is {n} units"),
                    ],
                ),
                operation(
                    "POST /reservations",
                    vec![
                        work(9.0),
                        call(&[to("database", "UPDATE stock", 400.0)]),
                        info("reserved {n} units of {sku} for order {order}"),
                    ],
                ),
            ],
        ),
        (
            "cart",
            4,
            vec![
                operation(
                    "POST /items",
                    vec![
                        info("adding {sku} to cart of {user}"),
                        work(2.0),
                        call(&[to("inventory", "GET /stock", 1_000.0), to("pricing", "POST /quotes", 1_000.0)]),
                        call(&[to("cache", "SET cart", 400.0)]),
                        info("cart of {user} now holds {n} items worth {amount} EUR"),
                    ],
                ),
                operation(
                    "GET /items",
                    vec![work(1.5), call(&[to("cache", "GET cart", 400.0)]), info("cart of {user} read in {ms} ms")],
                ),
            ],
        ),
        (
            "checkout",
            4,
            vec![operation(
                "POST /checkouts",
                vec![
                    info("checkout of order {order} started by {user}"),
                    work(3.0),
                    call(&[to("cart", "GET /items", 1_000.0)]),
                    call(&[to("inventory", "POST /reservations", 1_000.0), to("pricing", "POST /quotes", 1_000.0)]),
                    call(&[to("payment", "POST /charges", 1_000.0)]),
                    call(&[to("orders", "POST /orders", 1_000.0)]),
                    call(&[
                        to("shipping", "POST /shipments", 1_000.0),
                        Call { on_failure: OnFailure::Continue, ..to("email", "POST /messages", 1_000.0) },
                    ]),
                    info("order {order} completed: {amount} EUR in {ms} ms"),
                ],
            )],
        ),
        (
            "payment",
            4,
            vec![operation(
                "POST /charges",
                vec![
                    info("authorizing {amount} EUR for order {order}"),
                    work(28.0),
                    info("payment of order {order} captured: {amount} EUR"),
                ],
            )],
        ),
        (
            "orders",
            4,
            vec![
                operation(
                    "POST /orders",
                    vec![
                        work(4.0),
                        call(&[to("database", "INSERT orders", 400.0)]),
                        info("order {order} stored for {user} total {amount} EUR"),
                    ],
                ),
                operation(
                    "GET /orders/{id}",
                    vec![
                        work(3.0),
                        call(&[to("database", "SELECT orders", 400.0)]),
                        info("order {order} read by {user}"),
                    ],
                ),
            ],
        ),
        (
            "shipping",
            4,
            vec![
                operation(
                    "POST /shipments",
                    vec![
                        work(9.0),
                        call(&[to("database", "INSERT shipments", 400.0)]),
                        info("shipment of order {order} booked with {n} parcels"),
                    ],
                ),
                operation(
                    "GET /shipments/{id}",
                    vec![
                        work(5.0),
                        call(&[to("database", "SELECT shipments", 400.0)]),
                        info("shipment of order {order} tracked in {ms} ms"),
                    ],
                ),
            ],
        ),
        (
            "email",
            2,
            vec![operation(
                "POST /messages",
                vec![work(1.5), info("queued confirmation mail for order {order} to {user}")],
            )],
        ),
        (
            "database",
            8,
            ["SELECT products", "SELECT stock", "UPDATE stock", "INSERT orders", "SELECT orders", "INSERT shipments"]
                .into_iter()
                .chain(["SELECT shipments"])
                .map(|statement| {
                    operation(statement, vec![work(2.5), info(format!("{statement} took {{ms}} ms rows={{n}}"))])
                })
                .collect(),
        ),
        (
            "cache",
            4,
            ["GET session", "GET page", "GET prices", "SET cart", "GET cart"]
                .into_iter()
                .map(|command| {
                    let key = command.split_once(' ').map_or(command, |(_, key)| key);
                    let verb = if command.starts_with("SET") { "stored" } else { "hit" };
                    operation(command, vec![work(0.3), info(format!("{verb} key {key}:{{user}} in {{ms}} ms"))])
                })
                .collect(),
        ),
    ];
    let n_services = services.len() as f64;
    let service = |(idx, (name, n_servers, operations)): (usize, (&str, usize, Vec<Operation>))| Service {
        name: name.into(),
        n_servers,
        queue_capacity: 256,
        operations,
        background: background(name, idx as f64 / n_services),
    };
    services.into_iter().enumerate().map(service).collect()
}

/// Two records by the clock; `phase` (0 to 1) spreads the services, so that their order never changes.
fn background(name: &str, phase: f64) -> Vec<Background> {
    let chore = match name {
        "database" => "checkpoint complete: wrote {n} buffers in {ms} s",
        "cache" => "evicted {n} expired keys, memory used {mib} MiB",
        "pricing" | "catalog" => "refreshed {n} entries from upstream in {ms} ms",
        _ => "gc pause {ms} ms, heap {mib} MiB after collection",
    };
    let entry = |period_ms: f64, offset_ms: f64, severity_number: u8, text: &str| Background {
        period_ms,
        offset_ms,
        line: Line { severity_number, text: text.into() },
    };
    vec![
        entry(5_000.0, 100.0 + 2_400.0 * phase, 9, "health check passed in {ms} ms"),
        entry(10_000.0, 2_600.0 + 2_400.0 * phase, 9, chore),
    ]
}

fn frontend() -> Vec<Operation> {
    let page = |name: &str, received: &str, upstream: &str, sent: &str| {
        operation(
            name,
            vec![
                info(received),
                work(1.5),
                call(&[Call { n_retries: 0, ..to("gateway", upstream, 8_000.0) }]),
                work(1.0),
                info(sent),
            ],
        )
    };
    vec![
        page(
            "GET /products",
            "GET /products from {ip}",
            "GET /api/products",
            "products page sent to {user} in {ms} ms",
        ),
        page("GET /search", "GET /search from {ip}", "GET /api/search", "results page sent to {user} in {ms} ms"),
        page("POST /cart", "POST /cart from {ip}", "POST /api/cart", "cart page sent to {user} in {ms} ms"),
        page(
            "POST /checkout",
            "POST /checkout from {ip}",
            "POST /api/checkout",
            "receipt for order {order} sent to {user} in {ms} ms",
        ),
        page(
            "GET /orders/{id}",
            "GET /orders from {ip} for order {order}",
            "GET /api/orders/{id}",
            "tracking page of order {order} sent to {user} in {ms} ms",
        ),
    ]
}

fn gateway(name: &str, verify: Step, upstream: Call) -> Operation {
    let upstream = call(&[Call { n_retries: 0, ..upstream }]);
    operation(name, vec![work(1.2), verify, upstream, info(format!("routed {name} for {{user}} in {{ms}} ms"))])
}

fn request(name: &str, weight: f64, operation: &str) -> RequestKind {
    RequestKind { name: name.into(), weight, service: "frontend".into(), operation: operation.into() }
}

fn operation(name: &str, steps: Vec<Step>) -> Operation {
    Operation { name: name.into(), steps }
}

fn work(median_ms: f64) -> Step {
    Step::Work(ServiceTime::LogNormal { median_ms, sigma: 0.3 })
}

fn info(text: impl Into<String>) -> Step {
    Step::Log(Line { severity_number: 9, text: text.into() })
}

fn call(calls: &[Call]) -> Step {
    Step::Call(calls.to_vec())
}

/// A call that is tried once more and whose failure fails the caller.
fn to(service: &str, operation: &str, timeout_ms: f64) -> Call {
    Call {
        service: service.into(),
        operation: operation.into(),
        probability: 1.0,
        timeout_ms,
        n_retries: 1,
        on_failure: OnFailure::Fail,
    }
}
