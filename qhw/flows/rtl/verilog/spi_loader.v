// An SPI peripheral (mode 0) as the streams of a design, by the messages of `message_loader`.
module spi_loader #(
    parameter X = 1, Y = 2, BYTES = 64, WEIGHTS = 0,
    parameter [63:0] IDENTITY = 0
) (
    input  clk, reset, sck, mosi, cs, x_ready, y_valid, weights_ready,
    input  [Y*8-1:0] y,
    output miso, x_valid, y_ready, weights_valid, weights_last,
    output [7:0] weights,
    output [X*8-1:0] x,
    output lost
);
    wire [7:0] received, sent;
    wire received_valid, sent_valid, sent_ready;
    message_loader #(.X(X), .Y(Y), .BYTES(BYTES), .WEIGHTS(WEIGHTS), .IDENTITY(IDENTITY)) messages (
        .clk(clk), .reset(reset), .received_valid(received_valid), .received(received),
        .sent_valid(sent_valid), .sent_ready(sent_ready), .sent(sent),
        .x_valid(x_valid), .x_ready(x_ready), .x(x), .y_valid(y_valid), .y_ready(y_ready), .y(y),
        .weights_valid(weights_valid), .weights_ready(weights_ready), .weights_last(weights_last),
        .weights(weights), .lost(lost)
    );
    spi_peripheral port (
        .clk(clk), .reset(reset), .sck(sck), .mosi(mosi), .cs(cs), .miso(miso),
        .valid(received_valid), .data(received), .x_valid(sent_valid), .x_ready(sent_ready), .x(sent)
    );
endmodule
