struct Point {
    x: f64,
}

fn x_of(p: Point) -> f64 {
    p.x
}

fn main() {
    let _ = rdask::Client::local().unwrap().submit(x_of, (Point { x: 1.0 },));
}
